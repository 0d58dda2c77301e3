// Asks the node once a second for each section, and says when what is shown is old.
//
// An answer older than STALE_MS (since it was given, and by X-Age-Ms since obssvc itself knew it) marks its section; no
// answer at all for so long marks the page.

import {Chart} from "./charts.js";
import {events_path, show_events} from "./events.js";
import {matrix} from "./replication.js";
import {age, by_id, bytes, clock, count, fill_list, fill_table, make, megabytes, put, rate, seconds, time_of_day}
    from "./text.js";

const EACH_MS = 1000;
const TIMEOUT_MS = 2500;
const STALE_MS = 3000;
const KEPT_MS = 15 * 60 * 1000;

const CHARTS = [
    {id: "appends", name: "Appends", unit: "entries per second", format: (n) => `${rate(n)}/s`, least: 10,
     lines: [["appends_per_s", ""]]},
    {id: "bytes", name: "Written", unit: "megabytes per second", format: (n) => `${megabytes(n)} MB/s`, least: 1e4,
     lines: [["bytes_per_s", ""]]},
    {id: "append", name: "Append latency", unit: "", format: seconds, least: 1e-3,
     lines: [["append_p50_s", "p50"], ["append_p99_s", "p99"]]},
    {id: "commit", name: "Commit latency", unit: "", format: seconds, least: 1e-3,
     lines: [["commit_p50_s", "p50"], ["commit_p99_s", "p99"]]},
    {id: "lag", name: "Lag of the worst follower", unit: "", format: seconds, least: 1, lines: [["lag_s", ""]]},
    {id: "gets", name: "Gets of keys", unit: "per second", format: (n) => `${rate(n)}/s`, least: 10,
     lines: [["gets_per_s", ""]]},
];

// ---------------------------------------------------------------- the node

// Of services, nodes and health alike; what is not named is bad.
const KINDS = {
    running: "good", up: "good", healthy: "good",
    starting: "warn", stopping: "warn", backoff: "warn", held: "warn", joining: "warn", suspect: "warn", degraded: "warn",
    stopped: "calm", left: "calm"};
const kind_of = (state) => KINDS[state] ?? "bad";

let now_ms = Date.now(); // by the node's clock
let view_lag = null;

function show_status(status) {
    const writes = {taken: "taken", disk_full: "disk full", read_only: "read-only", walsvc_away: "walsvc away"};
    now_ms = status.now_ms;
    put(by_id("identity"), `node ${status.node} of cluster ${status.cluster}`);
    put(by_id("health"), status.health, `badge ${kind_of(status.health)}`);
    fill_list(by_id("reasons"), status.reasons, "li", put);
    const figures = [
        ["Appends", writes[status.writes] ?? status.writes], ["Last LSN", count(status.durable_lsn)],
        ["Log on disk", `${bytes(status.disk_bytes)}`], ["Segments", count(status.segments)],
        ["View lacks", view_lag === null ? "–" : count(view_lag)], ["Clients", count(status.clients)],
        ["Up for", age(status.uptime_ms)], ["Group", status.group ?? "–"], ["Version", status.version]];
    fill_list(by_id("figures"), figures, "div", (pair, [name, value]) => {
        if (pair.children.length === 0)
            pair.append(make("dt"), make("dd"));
        put(pair.children[0], name);
        put(pair.children[1], value);
    });
}

// ---------------------------------------------------------------- services

function service_row(row, died) {
    const end = row.last_exit === "" ? "–" : row.last_exit.match(/\((SIG\w+)\)/)?.[1] ?? row.last_exit;
    const when = died === undefined ? "" : `, ${time_of_day(died.time_ms)}, pid ${died.pid}`;
    return [
        {text: "\u2002".repeat(row.depth) + row.name},
        {text: row.state, kind: `state ${kind_of(row.state)}`},
        {text: count(row.restarts), kind: "number"},
        {text: row.pid > 0 ? age(row.uptime_ms) : "–", kind: "number"},
        {text: end, title: row.last_exit + when},
        {text: row.status, kind: "quiet wide", title: row.status}];
}

const obituary_text = (o) =>
    `${time_of_day(o.time_ms)} ${o.service} (pid ${o.pid}): ${o.cause}, after ${age(o.uptime_ms)}`;

// A line of a service is a JSON object, or whatever its libraries wrote.
function line_text(line) {
    try {
        const {time, level, msg, service, node, pid, ...fields} = JSON.parse(line);
        const rest = Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(" ");
        return msg === undefined ? line : `${clock(Date.parse(time))} ${level} ${msg} ${rest}`;
    } catch {
        return line;
    }
}

function show_services(answer) {
    const died = answer.obituaries;
    fill_table(by_id("tree"), answer.services.map((row) => service_row(row, died.find((o) => o.service === row.name))));
    put(by_id("obituary-head"), died.length === 0 ? "none: nothing has died" : obituary_text(died[0]));
    put(by_id("obituary-lines"), died.length === 0 ? "" : died[0].lines.map(line_text).join("\n"));
    fill_list(by_id("obituary-others"), died.slice(1, 20).map(obituary_text), "li", put);
}

// ---------------------------------------------------------------- nodes and replication

let members = null, replicas = null; // as they were answered last

function node_row(node) {
    const mark = node.watermarks.find((m) => m.log === node.log), note = node.unreachable ? ", unreachable" : "";
    const clock_text = node.self || node.heartbeat_age_ms === null ? "–" : `${count(node.clock_offset_ms)} ms`;
    return [
        {text: node.id, title: node.self ? "this node" : ""},
        {text: node.status.replaceAll("_", " ") + note, kind: `state ${note === "" ? kind_of(node.status) : "warn"}`},
        {text: age(now_ms - node.since_ms), kind: "number"},
        {text: node.self ? "itself" : node.heartbeat_age_ms === null ? "–" : age(node.heartbeat_age_ms), kind: "number"},
        {text: mark === undefined ? "–" : count(mark.lsn), kind: "number"},
        {text: node.group, kind: "wide"},
        {text: `${node.host}:${node.port}`, kind: "wide", title: `${node.host}:${node.port}`},
        {text: clock_text, kind: node.clock_drift ? "number wide state bad" : "number wide"}];
}

function show_nodes(answer) {
    members = answer.nodes;
    fill_table(by_id("members"), members.map(node_row));
    show_matrix();
}

function show_replicas(answer) {
    replicas = answer;
    show_matrix();
}

function show_matrix() {
    if (members === null || replicas === null)
        return;
    const {followers, rows} = matrix(members, replicas);
    fill_list(by_id("followers"), ["Log of", ...followers.map((id) => `at ${id}`)], "th", (head, text) => {
        head.scope = "col";
        put(head, text);
    });
    by_id("matrix").parentElement.style.minWidth = `${3 + 5.5 * followers.length}rem`;
    fill_table(by_id("matrix"), rows);
}

// ---------------------------------------------------------------- history

const charts = CHARTS.map((spec) => new Chart(spec));
by_id("charts").append(...charts.map((chart) => chart.figure));

let points = [];
let draw_charts = () => {}; // once there is something to draw

by_id("span").addEventListener("change", () => draw_charts());

function history_path() {
    return points.length === 0 ? "/api/v1/history" : `/api/v1/history?after=${points.at(-1)[0]}`;
}

// A row for each minute: the mean of rates, the worst of the rest.
function show_minutes(series, from_ms) {
    const lines = CHARTS.flatMap(({name, format, lines}) => lines.map(([key, label]) => ({
        head: `${name} ${label}`, format, column: series.indexOf(key) + 1, mean: key.endsWith("_per_s")})));
    const rows = Array.from({length: 15}, (_, i) => from_ms + 60000 * (14 - i)).map((begin) => {
        const within = points.filter(([ms]) => ms >= begin && ms < begin + 60000);
        return [{text: clock(begin)}, ...lines.map(({format, column, mean}) => {
            const values = within.map((point) => point[column]).filter((value) => value !== null);
            const sum = values.reduce((a, b) => a + b, 0);
            return {kind: "number", text: values.length === 0 ? "–"
                : format(mean ? sum / values.length : Math.max(...values))};
        })];
    });
    fill_list(by_id("minute-heads"), ["From", ...lines.map((line) => line.head)], "th", (head, text) => {
        head.scope = "col";
        put(head, text, text === "From" ? "" : "number");
    });
    fill_table(by_id("minutes"), rows);
}

function show_history(answer) {
    if (points.length > 0 && points.at(-1)[0] > answer.now_ms)
        points = []; // the node's clock was set back
    points = points.concat(answer.points).filter(([ms]) => ms >= answer.now_ms - KEPT_MS);
    draw_charts = () => charts.forEach((chart) =>
        chart.draw(points, answer.series, answer.each_ms, answer.now_ms, 60000 * by_id("span").value));
    draw_charts();
    view_lag = points.at(-1)?.[answer.series.indexOf("view_lag_entries") + 1] ?? null;
    if (by_id("minutes").closest("details").open)
        show_minutes(answer.series, answer.now_ms - KEPT_MS);
}

// ---------------------------------------------------------------- asking

const SOURCES = [
    {name: "status", path: () => "/api/v1/status", show: show_status},
    {name: "nodes", path: () => "/api/v1/nodes", show: show_nodes},
    {name: "replicas", path: () => "/api/v1/replicas", show: show_replicas},
    {name: "services", path: () => "/api/v1/services", show: show_services},
    {name: "history", path: history_path, show: show_history},
    {name: "events", path: events_path, show: show_events},
].map((source) => ({...source, busy: false, good_at: null, problem: ""}));

let heard_at = null;   // when the node answered last, whatever it said
let heard_clock = 0;   // the same as a time of day
const started_at = performance.now();

async function answer_of(source) {
    try {
        const response = await fetch(source.path(), {cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS)});
        const body = await response.json();
        heard_at = performance.now();
        heard_clock = Date.now();
        if (response.ok) {
            source.good_at = heard_at - Number(response.headers.get("X-Age-Ms") ?? 0);
            source.problem = "";
            return body;
        }
        source.problem = body.error.message;
    } catch {
        source.problem = "no answer";
    }
    return null;
}

async function ask(source) {
    if (source.busy)
        return;
    source.busy = true;
    const body = await answer_of(source);
    source.busy = false;
    const more = body !== null && source.show(body);
    show_freshness();
    if (more === true)
        ask(source);
}

// ---------------------------------------------------------------- how fresh it is

function show_note(source, now, page_is_stale) {
    const note = document.querySelector(`[data-of="${source.name}"]`);
    const old_ms = now - (source.good_at ?? started_at), stale = page_is_stale || old_ms > STALE_MS;
    note.closest("section").classList.toggle("stale", stale);
    put(note, stale && !page_is_stale ? `${age(old_ms)} old: ${source.problem || "no newer figures"}` : "");
    return stale;
}

function show_freshness() {
    const now = performance.now(), silent_ms = now - (heard_at ?? started_at), silent = silent_ms > STALE_MS;
    const stale = SOURCES.filter((source) => show_note(source, now, silent)).map((source) => source.name);
    const node = by_id("identity").textContent.split(" ")[1] ?? "";
    let kind = "live", text = "Live", more = "";
    if (silent) {
        kind = "stale";
        text = heard_at === null ? "No answer from the node" : `Stale: no answer since ${clock(heard_clock)}`;
        more = `(for ${age(silent_ms)})`;
    } else if (heard_at === null) {
        kind = "waits";
        text = "Asking the node";
    } else if (stale.length > 0) {
        kind = "partly";
        text = `Partly stale: ${stale.join(", ")}`;
    }
    by_id("freshness").className = kind;
    put(by_id("freshness-text"), text);
    put(by_id("freshness-age"), more);
    document.title = `${kind === "live" ? by_id("health").textContent : kind} ${node} – Shanghai`;
    if (SOURCES.every((source) => source.good_at !== null || now - started_at > STALE_MS))
        by_id("main").hidden = false;
}

function tick() {
    SOURCES.forEach(ask);
    show_freshness();
}

tick();
setInterval(tick, EACH_MS);
document.addEventListener("visibilitychange", tick); // a page that was hidden is not asked often by the browser
