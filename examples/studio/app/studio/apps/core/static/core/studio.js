// While tasks are waiting or running, the list of them is fetched anew every second.
const recent = document.getElementById("recent");

async function refresh() {
  if (!recent || !recent.querySelector("[data-busy]")) return;
  try {
    const answer = await fetch(recent.dataset.source);
    if (answer.ok) recent.innerHTML = await answer.text();
  } catch {
    // The site is being deployed or restarted; the next second will tell.
  }
  setTimeout(refresh, 1000);
}

setTimeout(refresh, 1000);
