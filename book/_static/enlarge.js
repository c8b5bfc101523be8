// A click on a picture opens it alone, where it can be enlarged. Sliders are left out: their pictures change.
document.addEventListener("DOMContentLoaded", () => {
  for (const picture of document.querySelectorAll(".bd-article figure:not(.slider) > img")) {
    const link = document.createElement("a");
    link.href = picture.src;
    link.title = "open this picture alone";
    picture.replaceWith(link);
    link.append(picture);
  }
});
