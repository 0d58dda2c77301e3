// Figures as people read them, and small helpers to put text into the page. Pure but for the latter.

const grouped = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const short = new Intl.NumberFormat("en", {maximumSignificantDigits: 3});

export const count = (n) => grouped.format(n);

function scaled(n, base, units) {
    let i = 0;
    while (Math.abs(n) >= base && i < units.length - 1) {
        n /= base;
        i++;
    }
    return `${short.format(n)}${units[i]}`;
}

// 12,300,000 as "12.3 M"
export const rate = (n) => scaled(n, 1000, ["", " k", " M", " G"]);
export const bytes = (n) => scaled(n, 1000, [" B", " kB", " MB", " GB", " TB"]);
export const megabytes = (n) => short.format(n / 1e6);

// Of a latency or lag.
export function seconds(s) {
    if (s === 0)
        return "0 s";
    if (s < 1e-3)
        return `${short.format(s * 1e6)} µs`;
    return s < 1 ? `${short.format(s * 1e3)} ms` : `${short.format(s)} s`;
}

// How long something has been so: the greatest unit.
export function age(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60)
        return `${s} s`;
    if (s < 3600)
        return `${Math.floor(s / 60)} min`;
    if (s < 86400)
        return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

export function time_of_day(ms) {
    const date = new Date(ms);
    const today = date.toDateString() === new Date().toDateString();
    return today ? clock(ms) : `${date.getDate()} ${date.toLocaleString("en", {month: "short"})} ${clock(ms)}`;
}

export const by_id = (id) => document.getElementById(id);

// Only what differs is written: a reader's selection and place stay, and nothing is laid out again.
export function put(element, text, kind = element.className) {
    if (element.textContent !== text)
        element.textContent = text;
    if (element.className !== kind)
        element.className = kind;
}

export function make(tag, kind = "", text = "") {
    const element = document.createElement(tag);
    if (kind !== "")
        element.className = kind;
    element.textContent = text;
    return element;
}

// As many children as there are items, each filled in by fill(child, item).
export function fill_list(parent, items, tag, fill) {
    while (parent.children.length > items.length)
        parent.lastElementChild.remove();
    while (parent.children.length < items.length)
        parent.append(make(tag));
    items.forEach((item, i) => fill(parent.children[i], item));
}

// rows: arrays of cells {text, kind, title}; the first cell of each is the row's heading.
export function fill_table(body, rows) {
    fill_list(body, rows, "tr", (row, cells) => {
        while (row.children.length > cells.length)
            row.lastElementChild.remove();
        cells.forEach((cell, i) => {
            if (row.children.length === i) {
                row.append(make(i === 0 ? "th" : "td"));
                if (i === 0)
                    row.firstElementChild.scope = "row";
            }
            put(row.children[i], cell.text, cell.kind ?? "");
            if (row.children[i].title !== (cell.title ?? ""))
                row.children[i].title = cell.title ?? "";
        });
    });
}
