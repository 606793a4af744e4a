/** The sentence in place of a player. */
function sentence(video, broken) {
  if (broken && broken === video.video_url) {
    return "The URL of this video has expired. " + (video.stored.length
      ? "Your copy is at the address under “Stored at”."
      : "To get a fresh URL, pass the generation id to LumaDownloadVideoOperator or LumaGenerationSensor.");
  }
  if (video.state === "submitted") return "Submitted. No task of this run waits for it.";
  if (video.state === "unknown") {
    return video.problems.length
      ? "The record of this task cannot be read."
      : "The task has no record: it ran before this tab was installed, or with do_xcom_push=False.";
  }
  if (video.state === "completed") return "Completed, but the API gave no URL of the video.";
  return STATES[video.state];
}

/** The player of a video, or a sentence in its place. */
function stage() {
  const player = make("video", { controls: true, playsInline: true, preload: "metadata", hidden: true });
  const instead = make("p");
  const element = make("div", { className: "stage" }, player, instead);
  let broken = "";
  let video;

  function draw() {
    const old = player.getAttribute("src") || "";
    const url = video.video_url && video.video_url !== broken ? video.video_url : "";
    if (!url || url !== old) element.style.aspectRatio = video.ratio || "";
    if (url && url !== old) Object.assign(player, { poster: video.poster_url || "", src: url });
    if (!url && old) {
      player.removeAttribute("src");
      player.load();
    }
    player.hidden = !url;
    player.setAttribute("aria-label", video.prompt || "Video");
    say(instead, sentence(video, broken));
  }

  player.addEventListener("error", () => { broken = player.getAttribute("src"); draw(); });
  player.addEventListener("loadedmetadata", () => { element.style.aspectRatio = player.videoWidth / player.videoHeight || ""; });
  return { element, show(one) { video = one; draw(); }, stop() { player.pause(); } };
}

/** The facts about a video, as a list. */
function facts() {
  const list = make("dl");
  const row = (name, className = "") => {
    const value = make("dd", { className });
    list.append(make("dt", {}, name), value);
    return value;
  };
  const state = make("span");
  row("State").append(state);
  const prompt = row("Prompt", "prompt");
  prompt.tabIndex = 0;
  const plain = { model: row("Model"), size: row("Size"), length: row("Length"), took: row("Took") };
  const showId = copyable(row("Generation id"), "Copy the generation id");
  const [images, stored, task] = [row("Images"), row("Stored at"), row("Task")];
  return {
    element: list,
    showState(video) {
      state.className = `state ${video.state}`;
      const since = video.state === "processing" && Date.parse(video.submitted_at);
      say(state, STATES[video.state] + (since ? ` for ${inWords(Math.max(0, Date.now() - since) / 1000)}` : ""));
    },
    show(video) {
      const took = video.took === null ? "" : inWords(video.took);
      for (const [name, element] of Object.entries(plain)) say(element, (name === "took" ? took : video[name]) || "–");
      say(prompt, video.prompt || "–");
      showId(video.generation_id);
      images.replaceChildren(...(video.images.length ? video.images.map(image) : ["–"]));
      say(stored, video.stored.join("\n") || "–");
      say(task, video.name);
    },
  };
}

/** One video with all its facts. Call `show` as often as you like. */
function detail() {
  const [player, list, problems] = [stage(), facts(), make("div")];
  let drawn = "";
  let video;

  function draw() {
    player.show(video);
    list.showState(video);
    if (JSON.stringify(video) === drawn) return;
    drawn = JSON.stringify(video);
    list.show(video);
    problems.replaceChildren(...video.problems.map((one) => make(
      "p", { className: "problem" }, make("b", {}, one.task), ": ", one.text || "failed. See its log for the reason.",
    )));
  }

  return {
    element: make("article", { className: "video" }, player.element, make("div", {}, problems, list.element)),
    show(one) { video = one; draw(); },
    tick() { if (video) draw(); },
    stop() { player.stop(); },
  };
}
