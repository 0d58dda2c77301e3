// The list of events, the newest first, at most KEPT.

import {by_id, make, put, time_of_day} from "./text.js";

const KEPT = 500;
const LEVELS = ["debug", "info", "warn", "error"];

let last = 0;
let begun_ms = null; // obssvc's start
let seen = new Set();

export const events_path = () => `/api/v1/events?after=${last}&most=200`;

const field_text = (value) => typeof value === "object" ? JSON.stringify(value) : String(value);

function item(event) {
    const level = LEVELS.includes(event.level) ? event.level : "info";
    const line = make("li", level), what = make("span", "what", event.text);
    const fields = Object.entries(event.fields ?? {}).map(([name, value]) => `${name}=${field_text(value)}`);
    const time = make("time", "", time_of_day(event.time_ms));
    time.dateTime = new Date(event.time_ms).toISOString();
    what.append(" ", make("span", "fields", [event.kind, ...fields].join(" ")));
    line.append(time, make("span", `state ${{warn: "warn", error: "bad"}[level] ?? "good"}`, level),
                make("span", "service", event.service), what);
    return line;
}

// obssvc that was restarted counts anew, and tells once more what others have kept.
function add(list, event) {
    const key = [event.time_ms, event.service, event.kind, event.text].join("\n");
    if (!seen.has(key))
        list.prepend(item(event));
    seen.add(key);
    last = event.id;
    if (seen.size > 4 * KEPT)
        seen = new Set([...seen].slice(-2 * KEPT));
    while (list.children.length > KEPT)
        list.lastElementChild.remove();
}

// True: there are more to ask for at once.
export function show_events(answer) {
    const list = by_id("event-list"), anew = begun_ms !== null && answer.since_ms !== begun_ms;
    begun_ms = answer.since_ms;
    if (anew && last > 0) {
        last = 0; // what this answer has is behind a number of the old count
        return true;
    }
    answer.events.forEach((event) => add(list, event));
    put(by_id("events-lost"), answer.lost > 0 ? `${answer.lost} were lost: there was no room for them` : "");
    const more = answer.events.length > 0 && last < answer.last;
    if (!more && list.getAttribute("aria-live") === "off")
        list.setAttribute("aria-live", "polite"); // what was there before is not read out
    return more;
}

by_id("level").addEventListener("change", (event) => {
    by_id("event-list").dataset.least = event.target.value;
});
by_id("level").dispatchEvent(new Event("change"));
