// Fetches the page again every few seconds, and puts its live parts in the place of the old ones.
//
// A template says how often on one element, `data-live-every="5"` (seconds), and marks its parts, each by a name of its own:
// `data-live="rows"`. What keeps its focus, or stays open, has an id. `admin/defer_django/live_button.html` pauses it.
// A part with `data-rows` (of `data-total`) has its rate and the time left written into `[data-rate]` and `[data-left]`
// inside it, as long as it has `data-moving`; `data-average` is the rate at first, `data-per-second` its words: "{n} rows/s".
"use strict";
{
  const root = document.querySelector("[data-live-every]");
  const every = 1000 * Number(root?.dataset.liveEvery);
  const language = document.documentElement.lang || undefined;
  const WINDOW = 60, LEAST = 10; // seconds that a rate is of: checkpoints come in bursts
  const MOST = 5; // doublings of the interval, once fetching fails
  const seen = []; // [seconds, rows]
  let on = sessionStorage.getItem("defer-live") !== "off";
  let failures = 0;

  // What a person is doing must not be taken away.
  function isBusy() {
    const doing = "input.action-select:checked, details[open] *:focus, form :is(select, input[type=text], input[type=search]):focus";
    return document.hidden || document.querySelector(doing) !== null || getSelection()?.isCollapsed === false;
  }

  function replaceParts(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
      if (other) {
        keepTokens(part, other);
        if (!other.isEqualNode(part)) replacePart(part, other);
      }
    }
  }

  // A token is masked anew for each page, and each holds: what differs by that alone stays, with the button that is being pressed.
  function keepTokens(part, other) {
    const token = part.querySelector("input[name=csrfmiddlewaretoken]")?.value;
    if (token) for (const each of other.querySelectorAll("input[name=csrfmiddlewaretoken]")) each.setAttribute("value", token);
  }

  function replacePart(part, other) {
    const open = [...part.querySelectorAll("details[open]")].map((each) => each.id);
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    for (const each of other.querySelectorAll("details")) each.open ||= open.includes(each.id);
    part.replaceWith(other);
    if (focused) document.getElementById(focused)?.focus();
    if (other.querySelector("input.action-select")) bindCheckboxes(other);
  }

  // The admin binds its checkboxes when a page has loaded. Each binding holds on to its rows for ever, so there is none before it is used.
  function bindCheckboxes(part) {
    const bound = new AbortController();
    const bind = () => {
      bound.abort();
      window.Actions?.(document.querySelectorAll("tr input.action-select"));
    };
    for (const event of ["focusin", "pointerdown"]) part.addEventListener(event, bind, { signal: bound.signal });
  }

  function showRate() {
    const part = document.querySelector("[data-rows]");
    if (!part) return;
    const [rows, total] = [Number(part.dataset.rows), Number(part.dataset.total)];
    const rate = measuredRate(rows) ?? Number(part.dataset.average);
    if (!(rate > 0) || !("moving" in part.dataset)) return;
    const [rateAt, leftAt] = [part.querySelector("[data-rate]"), part.querySelector("[data-left]")];
    if (rateAt) rateAt.textContent = part.dataset.perSecond.replace("{n}", format(rate, {}));
    if (leftAt && total > rows) leftAt.textContent = duration((total - rows) / rate);
  }

  function measuredRate(rows) {
    const now = performance.now() / 1000;
    seen.push([now, rows]);
    while (seen.length > 2 && now - seen[0][0] > WINDOW) seen.shift();
    const spent = now - seen[0][0];
    return spent > LEAST ? (rows - seen[0][1]) / spent : null;
  }

  function duration(seconds) {
    if (seconds < 90) return format(seconds, { unit: "second" });
    return seconds < 5400 ? format(seconds / 60, { unit: "minute" }) : format(seconds / 3600, { unit: "hour" });
  }

  function format(value, unit) {
    const style = unit.unit ? { style: "unit", unitDisplay: "short", ...unit } : {};
    return new Intl.NumberFormat(language, { ...style, maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
  }

  async function refresh() {
    if (on && !isBusy()) {
      try {
        const answer = await fetch(location.href, { headers: { "X-Requested-With": "XMLHttpRequest" }, redirect: "error" });
        if (answer.status === 404) return location.reload(); // what it shows is gone: the site says so
        if (!answer.ok) throw new Error(answer.status);
        const text = await answer.text();
        if (!isBusy()) replaceParts(new DOMParser().parseFromString(text, "text/html"));
        showRate();
        failures = 0;
      } catch {
        failures = Math.min(failures + 1, MOST); // logged out, deployed, offline: ask less and less often
      }
    }
    setTimeout(refresh, every * 2 ** failures);
  }

  function bindButton(button) {
    const tell = () => {
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? button.dataset.on : button.dataset.off;
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      on = !on;
      sessionStorage.setItem("defer-live", on ? "on" : "off");
      tell();
    });
    tell();
  }

  if (every) {
    for (const button of document.querySelectorAll("button.defer-live")) bindButton(button);
    showRate();
    setTimeout(refresh, every);
  }
}
