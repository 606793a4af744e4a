"use strict";
// Text from outside (prompts, reasons, URLs) is only ever set as text. The server passes on http(s) URLs only.
const STATES = {
  waiting: "Not submitted yet", processing: "Being made", submitted: "Submitted", completed: "Completed",
  failed: "Failed", retrying: "Failed, will be retried", skipped: "Not made", unknown: "Unknown",
};

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(element, text) {
  // Setting the same text again would drop the reader's selection.
  if (element.textContent !== text) element.textContent = text;
}

function inWords(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

function image({ is, url, text }) {
  const name = is === "image_url" ? "First frame" : "Last frame";
  if (!url) return make("div", {}, `${name}: ${text}`);
  const picture = make("img", { src: url, alt: name, title: name, className: "image", loading: "lazy" });
  picture.addEventListener("error", () => picture.replaceWith(`${name}: ${text}`));
  return make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, picture);
}

/** A text with a button that copies it. */
function copyable(place, title) {
  const code = make("code");
  const button = make("button", { className: "copy", type: "button", hidden: true, title }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Browsers give pages over plain http no clipboard.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  });
  place.append(code, button);
  return (text) => {
    if (code.textContent !== text) button.textContent = "Copy";
    say(code, text || "–");
    button.hidden = !text;
  };
}

function inRegion(region) {
  return region && region.region_id ? `?${new URLSearchParams(region)}` : "";
}

async function ask(url) {
  const answer = await fetch(url);
  if (answer.ok) return answer.json();
  const reasons = {
    401: "You are signed out of Airflow. Sign in and reload the page.",
    403: "You may not see the XComs of this DAG, or your login has expired. Sign in to Airflow again.",
    404: "Airflow has no such run, or the run has no such task.",
  };
  throw Object.assign(new Error(), { reason: reasons[answer.status] });
}
