const player = document.querySelector("video");
const told = document.querySelector("[role=status]");
const buttons = [...document.querySelectorAll("button[data-start]")];

for (const button of buttons) {
  button.addEventListener("click", () => {
    const { source, start, name, play } = button.dataset;
    if (source && player.getAttribute("src") !== source) player.src = source;
    player.currentTime = Number(start);
    if (play !== undefined) player.play();
    told.textContent = `The player is at ${name}.`;
  });
}

player.addEventListener("timeupdate", () => {
  for (const button of buttons) {
    const { source, start, end } = button.dataset;
    const here = player.currentTime >= Number(start) && player.currentTime < Number(end);
    button.setAttribute("aria-current", here && (!source || player.getAttribute("src") === source));
  }
});
