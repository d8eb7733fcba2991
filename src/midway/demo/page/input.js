// Keys and drops, wherever on the page.

/** Keys of the whole page; those of the picture belong to the picture. */
export function listenToKeys({ isReady, step, play }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !isReady()) return;
    const number = "1234".indexOf(event.key);
    if (number >= 0) return document.querySelectorAll("[name=view]")[number].click();
    if (event.key === ",") return step(-1);
    if (event.key === ".") return step(1);
    // The space bar presses the button that has the focus.
    if (event.key !== " " || /^(INPUT|BUTTON|SUMMARY)$/.test(event.target.tagName)) return;
    event.preventDefault();
    play();
  });
}

/** Files that are dropped anywhere; `cover` is shown while they are dragged over the page. */
export function listenToDrops(cover, choose) {
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    cover.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) cover.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    cover.hidden = true;
    choose(event.dataTransfer.files);
  });
}
