// A browser does not let a page from a folder read other files. So the search lists pages without excerpts there. Say why.
document.addEventListener("DOMContentLoaded", () => {
  const results = document.getElementById("search-results");
  if (!results || location.protocol !== "file:") return;
  const note = document.createElement("p");
  note.textContent = "The results have no excerpts, because the book was opened from a folder. " +
    "To see excerpts, run “python -m http.server” in this folder and open http://localhost:8000.";
  results.before(note);
});
