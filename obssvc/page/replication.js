// Which log is how far at which follower. Of the own log and of those that this node follows, /api/v1/replicas knows state
// and lag at first hand; the rest is what nodes tell each other of their watermarks, a moment old. Pure.

import {bytes, count, seconds} from "./text.js";

const LAGS_MS = 2000; // what streams is always a little behind
const MARKS = {streaming: "good", disconnected: "bad", forked: "bad"};

const unbroken = (text) => text.replaceAll(" ", "\u00a0");
const mark_of = (node, log) => node.watermarks.find((mark) => mark.log === log);

// A place of /api/v1/replicas as a cell.
function known(place) {
    if (place.closed)
        return {text: `closed\nLSN ${count(place.lsn)}`, kind: "none"};
    const lines = [count(place.lag_entries), place.state.replaceAll("_", " ")];
    if (place.lag_bytes > 0)
        lines.splice(1, 0, [bytes(place.lag_bytes), seconds(place.lag_ms / 1000)].map(unbroken).join(", "));
    const kind = MARKS[place.state] ?? "warn", lags = place.lag_bytes > 0 && place.lag_ms >= LAGS_MS;
    return {text: lines.join("\n"), kind: kind === "good" && lags ? "warn" : kind, title: `LSN ${count(place.lsn)}`};
}

// Nobody is asked about it: only watermarks say it.
function gossiped(row, follower) {
    const mark = mark_of(follower, row.log);
    if (mark === undefined)
        return {text: "–", kind: "none", title: "not followed, as far as is known"};
    if (row.lsn === null)
        return {text: `LSN\n${count(mark.lsn)}`, kind: "gossip"};
    const behind = Math.max(0, row.lsn - mark.lsn), down = follower.status === "down";
    return {text: `${count(behind)}\n${down ? "node is down" : "by gossip"}`,
            kind: `gossip ${down ? "bad" : behind === 0 ? "good" : "warn"}`, title: `LSN ${count(mark.lsn)}`};
}

function cell(row, follower, replicas) {
    if (row.node === follower.id && !(follower.id === replicas.node && replicas.fetched_back))
        return {text: row.lsn === null ? "own" : `LSN\n${count(row.lsn)}`, kind: "own", title: "its own log"};
    const place = row.log === replicas.log ? replicas.followers.find((r) => r.follower === follower.id)
        : follower.id === replicas.node ? replicas.followed.find((r) => r.log === row.log) : undefined;
    return place !== undefined ? known(place) : gossiped(row, follower);
}

// Logs of members, then those that are followed though nobody here extends them.
function log_rows(members, replicas) {
    const rows = members.filter((node) => node.log !== null).map((node) => ({
        log: node.log, node: node.id, name: node.id,
        lsn: node.log === replicas.log ? replicas.durable_lsn : mark_of(node, node.log)?.lsn ?? null}));
    for (const place of replicas.followed)
        if (!rows.some((row) => row.log === place.log))
            rows.push({log: place.log, node: null, name: place.origin ?? place.log.slice(0, 8), lsn: null});
    return rows;
}

// {followers: [id], rows: [[{text, kind, title}]]}, the first cell of a row the log's name
export function matrix(nodes, replicas) {
    const members = nodes.filter((node) => node.status !== "left");
    const rows = log_rows(members, replicas).map((row) => [
        {text: row.name, title: `log ${row.log}`}, ...members.map((follower) => cell(row, follower, replicas))]);
    return {followers: members.map((node) => node.id), rows};
}
