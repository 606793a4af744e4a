const main = document.querySelector("main");
const notice = document.getElementById("notice");

/** The iteration of a loop that Airflow shows. It is in Airflow's address only; Airflow does not pass it to tabs. */
function iteration() {
  const shown = new URLSearchParams(parent.location.search);
  return inRegion({ region_id: shown.get("region_id"), region_index: shown.get("region_index") });
}

/** The tab of a task. Returns a function that refreshes it, and whose answer is whether the run is active. */
function ofTask() {
  const view = detail();
  setInterval(view.tick, 1000);
  return async () => {
    const { live, video } = await ask(`${location.pathname}.json${iteration()}`);
    say(notice, video ? "" : "No Luma video in this task.");
    if (video) {
      view.show(video);
      if (!view.element.isConnected) main.append(view.element);
    }
    return live;
  };
}

/** The tab of a run. Returns the same kind of function as `ofTask`. */
function ofRun() {
  const dialog = enlarged();
  const tiles = wall((video) => dialog.open(video));
  const more = make("button", { id: "more", type: "button", hidden: true });
  let limit = "";
  more.addEventListener("click", () => { limit = "?limit=100000"; again(); });
  main.append(tiles.element, more, dialog.element);
  return async () => {
    const { live, total, states, videos } = await ask(`${location.pathname}.json${limit}`);
    const counts = Object.keys(STATES).filter((one) => states[one]).map((one) => `${states[one]} ${STATES[one].toLowerCase()}`);
    say(notice, total ? `${total} ${total === 1 ? "video" : "videos"}: ${counts.join(", ")}` : "No Luma video in this run yet.");
    tiles.show(videos);
    more.hidden = videos.length === total;
    say(more, `Show all ${total}`);
    await dialog.refresh();
    return live;
  };
}

const isWall = location.pathname.endsWith("/videos");
const refresh = isWall ? ofRun() : ofTask();
let next;
let turn = 0;

async function again() {
  clearTimeout(next);
  const mine = ++turn;
  let live = true;
  try {
    live = document.hidden ? true : await refresh();
  } catch (error) {
    say(notice, error.reason || "Airflow did not give a valid answer. Trying again.");
    live = error.reason ? null : true;
  }
  // A task of a finished run can be cleared and then run again.
  const pause = isWall ? 5000 : 3000;
  if (mine === turn && live !== null) next = setTimeout(again, live ? pause : 30_000);
}

/** Use the colours of the Airflow page around this tab. */
function asAirflow() {
  const itself = matchMedia("(prefers-color-scheme: dark)").matches;
  const around = parent.document.documentElement;
  document.documentElement.classList.toggle("dark", parent === window ? itself : around.classList.contains("dark"));
  const colours = [parent.document.body, around].map((one) => getComputedStyle(one).backgroundColor);
  const card = parent === window ? "" : colours.find((one) => one !== "rgba(0, 0, 0, 0)");
  document.documentElement.style.setProperty("--card", card || "");
}
asAirflow();
if (parent !== window) {
  document.body.style.fontFamily = getComputedStyle(parent.document.body).fontFamily;
  new MutationObserver(asAirflow).observe(parent.document.documentElement, { attributes: true, attributeFilter: ["class"] });
  // Links in Airflow's frame cannot open pages, but Airflow's own page can.
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest("a[href]");
    if (anchor) {
      event.preventDefault();
      parent.open(anchor.href, "_blank", "noopener,noreferrer");
    }
  });
}
again();
