// Code that is wider than its box scrolls, and the theme lets the keyboard reach it. But it looks for such code only when
// the window changes. So we say that it has changed when a reader opens a solution or a choice of a quiz.
document.addEventListener("click", event => {
  if (event.target.closest(".toggle, summary")) window.dispatchEvent(new Event("resize"));
});
