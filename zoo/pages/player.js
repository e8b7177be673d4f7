const player = document.querySelector("video");
const told = document.querySelector("[role=status]");
const buttons = [...document.querySelectorAll("button[data-start]")];
let chosen = null;

function show(source) {
  if (source && player.getAttribute("src") !== source) player.src = source;
}

function play() {
  if (chosen.dataset.play !== undefined) player.play().catch(() => {}); // what cannot be played is an error event, too
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    chosen = button;
    show(button.dataset.source);
    player.currentTime = Number(button.dataset.start);
    play();
    told.textContent = `The player is at ${button.dataset.name}.`;
  });
}

player.addEventListener("error", () => {
  const copy = chosen?.dataset.copy;
  if (!copy || player.getAttribute("src") === copy) return;
  show(copy);
  play();
  told.textContent = `This browser does not play the file: the player has a copy of the stretch at ${chosen.dataset.name}.`;
});

player.addEventListener("timeupdate", () => {
  const source = player.getAttribute("src");
  for (const button of buttons) {
    const { start, end } = button.dataset;
    const here = player.currentTime >= Number(start) && player.currentTime < Number(end);
    const isShown = !button.dataset.source || source === button.dataset.source;
    button.setAttribute("aria-current", (isShown && here) || source === button.dataset.copy);
  }
});
