/** Tells an element, by an event `near`, when it comes close to the screen or leaves it. */
const near = new IntersectionObserver(
  (seen) => seen.forEach((one) => one.target.dispatchEvent(new CustomEvent("near", { detail: one.isIntersecting }))),
  { rootMargin: "300px" },
);

/** The first frame of a video without a poster. It is fetched only while it is near the screen. */
function firstFrame() {
  const frame = make("video", { muted: true, playsInline: true, preload: "metadata", tabIndex: -1, hidden: true });
  let url;
  let isNear = false;
  function draw() {
    // Some browsers show no frame before a video plays, unless the URL names a moment.
    if (url && isNear) frame.src = `${url}#t=0.001`;
    else if (frame.hasAttribute("src")) {
      frame.removeAttribute("src");
      frame.load();
    }
  }
  frame.addEventListener("loadeddata", () => { frame.hidden = false; });
  return {
    element: frame,
    near(now) { isNear = now; draw(); },
    show(now) {
      if (now === url) return;
      url = now;
      frame.hidden = true;
      draw();
    },
  };
}

/** The picture of a video, or a sentence in its place. */
function preview() {
  const picture = make("img", { loading: "lazy", decoding: "async", alt: "", hidden: true });
  const frame = firstFrame();
  const instead = make("p");
  const element = make("div", { className: "stage" }, picture, frame.element, instead);
  let shown;
  let isStored;
  const expired = () => {
    picture.hidden = frame.element.hidden = true;
    say(instead, isStored ? "The URL has expired. Your copy is stored." : "The URL has expired.");
  };
  picture.addEventListener("error", expired);
  frame.element.addEventListener("error", expired);
  element.addEventListener("near", (event) => frame.near(event.detail));
  near.observe(element);
  return {
    element,
    show({ poster_url, video_url, reason, problems, state, stored, ratio }) {
      isStored = stored.length > 0;
      element.classList.toggle("tall", ratio < 1);
      const now = JSON.stringify([poster_url, video_url, reason, problems, state]);
      if (now === shown) return;
      shown = now;
      picture.hidden = !poster_url;
      if (poster_url) picture.src = poster_url;
      else picture.removeAttribute("src");
      frame.show(poster_url ? null : video_url);
      const problem = problems.find((one) => one.text);
      say(instead, reason || (problem && problem.text) || STATES[state]);
    },
  };
}

function tile(open) {
  const picture = preview();
  const [text, state, name] = [make("div", { className: "text" }), make("span"), make("span")];
  const words = make("div", { className: "words" }, text, make("div", { className: "foot" }, state, name));
  let video;
  const button = make("button", { type: "button", onclick: () => open(video) }, picture.element, words);
  return {
    element: make("li", {}, button),
    show(one) {
      video = one;
      picture.show(video);
      say(text, video.prompt || "–");
      button.title = video.prompt;
      state.className = `state ${video.state}`;
      say(state, STATES[video.state]);
      say(name, video.name);
    },
  };
}

/** The tiles of a run's videos. */
function wall(open) {
  const element = make("ul", { id: "wall" });
  const tiles = new Map();
  return {
    element,
    show(videos) {
      for (const [index, video] of videos.entries()) {
        const key = `${video.task_id} ${video.map_index} ${inRegion(video.region)}`;
        if (!tiles.has(key)) tiles.set(key, tile(open));
        tiles.get(key).show(video);
        // Keep the server's order, and do not touch tiles that are in place.
        const place = element.children[index];
        if (place !== tiles.get(key).element) element.insertBefore(tiles.get(key).element, place || null);
      }
      for (const gone of [...element.children].slice(videos.length)) gone.remove();
    },
  };
}

/** The dialog that shows a video of the wall with all its facts. */
function enlarged() {
  const view = detail();
  const close = make("button", { className: "close", type: "button", onclick: () => element.close() }, "Close");
  const element = make("dialog", { ariaLabel: "Video" }, close, view.element);
  const tasks = location.pathname.replace(/videos$/, "tasks/");
  let chosen;

  async function refresh() {
    const asked = chosen;
    if (!asked) return;
    const path = `${encodeURIComponent(asked.task_id)}/${asked.map_index}/video.json${inRegion(asked.region)}`;
    const { video } = await ask(tasks + path);
    if (chosen === asked && video) view.show(video);
  }

  element.addEventListener("close", () => { chosen = undefined; view.stop(); });
  element.addEventListener("click", (event) => { if (event.target === element) element.close(); });
  setInterval(() => { if (chosen) view.tick(); }, 1000);
  return {
    element,
    refresh: () => refresh().catch(() => {}),
    open(video) {
      chosen = video;
      view.show(video);
      element.showModal();
      this.refresh();
    },
  };
}
