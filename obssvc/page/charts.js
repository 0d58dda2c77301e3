// Live charts: SVG in units of its own (0..100 both ways), stretched over the room there is, with labels in HTML around it.
// Each has a cursor, by the pointer or the arrow keys, which is told to screen readers as a slider's value.

import {clock, make, put} from "./text.js";

const LINES = 2; // of the grid, beside that of 0
const svg = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);

// The least of 1, 2, 5, 10, 20, ... that is not below.
export function round_up(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value * (1 - 1e-9));
}

const ago = (ms) => ms >= 60000 && ms % 60000 === 0 ? `${ms / 60000} min` : `${Math.round(ms / 1000)} s`;

// Points as a path: a point without a figure, or that is missing, leaves a gap; one alone is a dot.
export function path_of(points, column, each_ms, x, y) {
    let path = "", last_ms = -Infinity;
    for (const point of points) {
        if (point[column] === null)
            continue;
        const at = `${x(point[0]).toFixed(2)} ${y(point[column]).toFixed(2)}`;
        path += point[0] - last_ms < 2.5 * each_ms ? `L${at}` : `M${at}h0.01`;
        last_ms = point[0];
    }
    return path;
}

export class Chart {
    // spec: name, unit (read aloud), format, least (the top of the scale at least), lines: [[series, label], ...]
    constructor(spec) {
        this.spec = spec;
        this.cursor_ms = null;
        this.figure = make("figure");
        this.figure.id = `chart-${spec.id}`;
        this.make_caption();
        this.make_plot();
        this.figure.append(this.summary = make("p", "only-read"));
        this.summary.id = `summary-${spec.id}`;
        this.plot.setAttribute("aria-describedby", this.summary.id);
    }

    make_caption() {
        const caption = make("figcaption"), legend = make("span", "legend");
        this.legends = this.spec.lines.map(() => make("span"));
        legend.append(...this.legends);
        caption.append(make("span", "name", this.spec.name), legend);
        this.figure.append(caption);
    }

    make_plot() {
        const plot = this.plot = make("div", "plot"), image = svg("svg");
        image.setAttribute("viewBox", "0 0 100 100");
        image.setAttribute("preserveAspectRatio", "none");
        image.setAttribute("aria-hidden", "true");
        const grid = this.path(image, "grid");
        grid.setAttribute("d", Array.from({length: LINES + 1}, (_, i) => `M0 ${100 / LINES * i}h100`).join(""));
        this.paths = this.spec.lines.map((_, i) => this.path(image, `line-${i}`));
        this.cursor = this.path(image, "cursor");
        this.scale = Array.from({length: LINES + 1}, (_, i) => this.label("y", (label) => {
            label.style.top = `calc((100% - 1.2rem) * ${i / LINES} - .36rem)`;
        }));
        this.times = [0, 1 / 3, 2 / 3, 1].map((share) => this.label("x", (label) => {
            label.style.left = `calc(3.4rem + (100% - 3.4rem) * ${share})`;
            label.style.translate = `${-100 * share}%`;
        }));
        plot.prepend(image);
        this.make_slider(plot);
        this.figure.append(plot);
    }

    path(image, kind) {
        const path = svg("path");
        path.setAttribute("class", kind);
        image.append(path);
        return path;
    }

    label(kind, place) {
        const label = make("span", `label ${kind}`);
        label.setAttribute("aria-hidden", "true");
        place(label);
        this.plot.append(label);
        return label;
    }

    // ------------------------------------------------------------ the cursor

    make_slider(plot) {
        plot.tabIndex = 0;
        plot.setAttribute("role", "slider");
        plot.setAttribute("aria-label", this.spec.name);
        plot.setAttribute("aria-valuemax", 0);
        plot.addEventListener("pointermove", (event) => {
            const box = plot.firstElementChild.getBoundingClientRect();
            this.move_to(this.from_ms + (event.clientX - box.left) / box.width * this.span_ms);
        });
        plot.addEventListener("pointerleave", () => this.move_to(null));
        plot.addEventListener("blur", () => this.move_to(null));
        plot.addEventListener("keydown", (event) => this.on_key(event));
    }

    on_key(event) {
        const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -6, PageUp: 6};
        if (event.key in steps)
            this.move_to((this.cursor_ms ?? this.to_ms) + Math.max(1000, this.span_ms / 90) * steps[event.key]);
        else if (event.key === "Home")
            this.move_to(this.from_ms);
        else if (event.key === "End" || event.key === "Escape")
            this.move_to(null);
        else
            return;
        event.preventDefault();
    }

    // null: to the newest point, whatever comes.
    move_to(ms) {
        this.cursor_ms = ms === null ? null : Math.min(this.to_ms, Math.max(this.from_ms, ms));
        if (this.points !== undefined)
            this.draw_cursor();
    }

    point_at(ms) {
        let best = null;
        for (const point of this.points)
            if (best === null || Math.abs(point[0] - ms) < Math.abs(best[0] - ms))
                best = point;
        return best !== null && Math.abs(best[0] - ms) <= 2000 ? best : null;
    }

    draw_cursor() {
        const ms = this.cursor_ms, point = ms === null ? this.points.at(-1) ?? null : this.point_at(ms);
        const x = ms === null ? -1 : (ms - this.from_ms) / this.span_ms * 100;
        this.cursor.setAttribute("d", ms === null ? "" : `M${x} 0v100`);
        const said = this.spec.lines.map(([, label], i) => {
            const value = point?.[this.columns[i]] ?? null;
            return `${label}${label === "" ? "" : " "}${value === null ? "–" : this.spec.format(value)}`;
        });
        this.legends.forEach((legend, i) => put(legend, i === 0 && ms !== null ? `${clock(ms)} ${said[i]}` : said[i]));
        this.plot.setAttribute("aria-valuenow", ms === null ? 0 : Math.round((ms - this.to_ms) / 1000));
        this.plot.setAttribute("aria-valuetext", `${ms === null ? "now" : clock(ms)}: ${said.join(", ")} ${this.spec.unit}`);
    }

    // ------------------------------------------------------------ drawing

    // points: [[ms, value of series[0], ...], ...] by time
    draw(points, series, each_ms, now_ms, span_ms) {
        this.points = points.filter(([ms]) => ms >= now_ms - span_ms);
        this.columns = this.spec.lines.map(([name]) => series.indexOf(name) + 1);
        this.span_ms = span_ms;
        this.from_ms = now_ms - span_ms;
        this.to_ms = now_ms;
        const values = this.points.flatMap((point) => this.columns.map((c) => point[c])).filter((value) => value !== null);
        const most = values.reduce((a, b) => Math.max(a, b), 0), top = round_up(Math.max(most, this.spec.least));
        const x = (ms) => (ms - this.from_ms) / span_ms * 100, y = (value) => 100 - value / top * 100;
        this.paths.forEach((path, i) => path.setAttribute("d", path_of(this.points, this.columns[i], each_ms, x, y)));
        this.scale.forEach((label, i) => put(label, this.spec.format(top * (1 - i / LINES))));
        this.times.forEach((label, i) => put(label, i === 3 ? "now" : `−${ago(span_ms * (3 - i) / 3)}`));
        this.plot.setAttribute("aria-valuemin", -span_ms / 1000);
        this.draw_cursor();
        put(this.summary, values.length === 0 ? "no figures yet"
            : `of the last ${ago(span_ms)}, at most ${this.spec.format(most)} ${this.spec.unit}; arrow keys go through them`);
    }
}
