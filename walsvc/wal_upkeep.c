/* Holds, retention and trims as the janitor does them, and its questions. A failed sync is fatal (on_fatal);
 * a full disk is not: what could not be written is tried again. */
#include "wal_upkeep.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "telemetry_push.h"

#define RETRY_NS NS_PER_S
#define JUMP_NS  (3600 * NS_PER_S)
#define AHEAD_NS (86400 * NS_PER_S)
#define LOOK_NS  (3600 * NS_PER_S) /* the wall clock is looked at so often: it may be set */
enum { HOLD_SHARE = 2 };

/* Stands for a register that is damaged or missing. */
static const char lost_register[] = "lost-register";

struct wal_retention wal_upkeep_rules(const struct wal_upkeep *u)
{
    const struct wal_upkeep_settings *s = &u->options.settings;
    struct wal_retention rules = {s->retention_bytes, s->retention_age_ns, s->member_hold_max};
    uint64_t total;
    if (rules.member_hold_max == 0)
        rules.member_hold_max = u->options.fs->total_bytes(u->options.fs, u->options.dir, &total) == 0
                                    ? total / HOLD_SHARE
                                    : UINT64_MAX;
    return rules;
}

/* ---------------------------------------------------------------- life */

/* Nobody knows what was held: everything is, as if by a member that is away. Without a file there was no hold
 * if the log is still in its first segment. */
static enum service_exit replace_register(struct wal_upkeep *u, enum sh_error error)
{
    struct wal_hold hold = {.kind = WAL_HOLD_MEMBER, .lsn = 1};
    uint64_t *bases;
    size_t count;
    int result = segment_list(u->options.fs, u->options.dir, &bases, &count);
    if (result < 0) {
        log_error("cannot list a log's segments", log_text("dir", u->options.dir),
                  log_text("error", strerror(-result)));
        return EXIT_FAULT;
    }
    bool is_new = count == 0 || (count == 1 && bases[0] == 1);
    free(bases);
    u->holds.dirty = true;
    if (error == SH_NOT_FOUND && is_new)
        return EXIT_DONE;
    log_error("the register of holds is damaged or missing: nothing is trimmed, up to wal.member_hold_max, "
              "until the hold `lost-register` is released (shanghaictl log trim --release lost-register)",
              log_text("dir", u->options.dir), log_text("error", sh_error_name(error)));
    snprintf(hold.name, sizeof hold.name, "%s", lost_register);
    wal_holds_put(&u->holds, &hold);
    return EXIT_DONE;
}

/* An earlier process may have ended between a trim and the register's change. */
static void forget_trimmed_damage(const struct wal_upkeep *u)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(u->options.fs, u->options.dir, &bases, &count);
    if (result == 0 && count > 0)
        wal_upkeep_check(u, wal_damage_trimmed(u->options.damage, bases[0]));
    free(bases);
}

enum service_exit wal_upkeep_open(struct wal_upkeep *u, const struct wal_upkeep_options *options,
                                  struct wal_upkeep_time now)
{
    *u = (struct wal_upkeep){
        .options = *options, .looked = now, .has_grown = true, .figures.first_position = WAL_FIGURE_UNKNOWN};
    u->catalog = (struct wal_catalog){
        .fs = options->fs, .dir = options->dir, .log = options->log, .stop = options->stop};
    enum sh_error error = wal_holds_read(&u->holds, options->fs, options->dir, options->log);
    if (error == SH_INTERNAL)
        return EXIT_FAULT;
    if (error == SH_VERSION_MISMATCH) {
        log_error("the register of holds has a format that this version doesn't know",
                  log_text("dir", options->dir));
        return EXIT_CONFIG;
    }
    enum service_exit code = error == SH_OK ? EXIT_DONE : replace_register(u, error);
    wal_rounds_open(&u->rounds, &u->catalog, now.real_ns, wal_upkeep_on_damage, u);
    wal_upkeep_set(u, &options->settings);
    if (code != EXIT_DONE)
        wal_upkeep_close(u);
    else
        forget_trimmed_damage(u);
    return code;
}

void wal_upkeep_close(struct wal_upkeep *u)
{
    wal_rounds_close(&u->rounds);
    wal_catalog_free(&u->catalog);
    wal_holds_free(&u->holds);
}

void wal_upkeep_set(struct wal_upkeep *u, const struct wal_upkeep_settings *settings)
{
    u->options.settings = *settings;
    u->rounds.rate = settings->scrub_rate;
    u->rounds.interval_ns = settings->scrub_interval_ns;
    wal_damage_set_reserve(u->options.damage,
                           wal_disk_reserve(u->options.fs, u->options.dir, settings->disk_reserve));
}

/* ---------------------------------------------------------------- holds */

/* 0, -ENOSPC or -EDQUOT. */
static int write_holds(struct wal_upkeep *u)
{
    int result = wal_holds_write(&u->holds, u->options.fs, u->options.dir, u->options.log);
    failpoint_hit("holds_written");
    if (result < 0 && !wal_is_full(result))
        u->options.on_fatal(u->options.arg, "cannot write the register of holds", result);
    return result;
}

static void refuse(uint32_t *type, struct buf *answer, enum sh_error code, const char *text,
                   uint64_t expected)
{
    struct msg_error error = {.code = code, .text = slice_str(text), .expected = expected};
    if (code == SH_OVERLOADED)
        error.retry_ms = MS_PER_S;
    *type = MSG_error;
    answer->len = 0;
    msg_encode(MSG_error, &error, answer);
}

static bool is_name(struct slice name)
{
    if (name.len == 0 || !utf8_valid(name))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < 0x20 || name.data[i] == 0x7f)
            return false;
    return true;
}

/* NULL: the message is in order. */
static const char *check_hold(const struct msg_hold *m)
{
    if (!is_name(m->name))
        return "a hold's name has 1 to 64 bytes of UTF-8, and no control characters";
    if (m->kind < WAL_HOLD_MEMBER)
        return "there is no hold of that kind";
    if (m->remove)
        return NULL;
    if (wal_hold_is_lasting((enum wal_hold_kind)m->kind) != (m->ttl_ms == 0))
        return "members and views hold without a ttl, readers, backups and cursors with one";
    return NULL;
}

/* Whether two LSNs lie in different segments, as far as the catalogue knows. */
static bool crosses_segment(const struct wal_catalog *c, uint64_t from, uint64_t to)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->all[i].base_lsn > from && c->all[i].base_lsn <= to)
            return true;
    return false;
}

static void set_hold(struct wal_upkeep *u, const struct msg_hold *m, struct wal_upkeep_time now,
                     uint32_t *type, struct buf *answer)
{
    struct wal_hold before = {0}, *known = wal_holds_find(&u->holds, (enum wal_hold_kind)m->kind, m->name);
    struct wal_hold hold = {.kind = (enum wal_hold_kind)m->kind, .lsn = m->lsn > 0 ? m->lsn : 1};
    uint64_t first_lsn = wal_catalog_first_lsn(&u->catalog);
    memcpy(hold.name, m->name.data, m->name.len);
    hold.ttl_ns = (int64_t)m->ttl_ms * NS_PER_MS;
    hold.expires_ns = hold.ttl_ns > 0 ? now.real_ns + hold.ttl_ns : 0;
    if (hold.lsn < first_lsn) {
        refuse(type, answer, SH_TRIMMED, "entries from that LSN on are not there any more", first_lsn);
        return;
    }
    if (known == NULL && u->holds.count == WAL_HOLDS_MAX) {
        refuse(type, answer, SH_OVERLOADED, "there are too many holds already", 0);
        return;
    }
    bool is_new = known == NULL;
    if (!is_new)
        before = *known;
    known = wal_holds_put(&u->holds, &hold);
    if (!is_new && (before.broken || crosses_segment(&u->catalog, known->file_lsn, known->lsn)))
        u->holds.dirty = true;
    if (!wal_hold_needs_file(known) || write_holds(u) == 0)
        return;
    /* A restart might trim what it keeps: it is not in force. */
    if (is_new)
        wal_holds_remove(&u->holds, known);
    else
        *known = before;
    refuse(type, answer, SH_DISK_FULL, "no room to write the hold down", 0);
}

static void on_hold(struct wal_upkeep *u, const struct msg_hold *m, struct wal_upkeep_time now,
                    uint32_t *type, struct buf *answer)
{
    const char *wrong = check_hold(m);
    if (wrong != NULL) {
        refuse(type, answer, SH_BAD_REQUEST, wrong, 0);
        return;
    }
    if (wal_catalog_refresh(&u->catalog) != SH_OK) {
        refuse(type, answer, SH_INTERNAL, "the log's folder cannot be read", 0);
        return;
    }
    struct wal_hold *known = wal_holds_find(&u->holds, (enum wal_hold_kind)m->kind, m->name);
    struct msg_hold_reply reply = {.log = u->options.log, .first_lsn = wal_catalog_first_lsn(&u->catalog)};
    *type = MSG_hold_reply;
    msg_encode(MSG_hold_reply, &reply, answer);
    if (!m->remove)
        set_hold(u, m, now, type, answer);
    else if (known != NULL)
        wal_holds_remove(&u->holds, known);
    if (u->holds.dirty)
        write_holds(u); /* when the disk is full: later; until then the file holds more than it must */
}

/* ---------------------------------------------------------------- trimming */

static int trim(struct wal_upkeep *u, size_t count, struct wal_trimmed *out)
{
    bool must_end;
    int result = wal_catalog_remove(&u->catalog, count, out, &must_end);
    if (must_end)
        u->options.on_fatal(u->options.arg, "cannot sync the log's folder after a trim", result);
    if (out->segments == 0)
        return result;
    wal_upkeep_check(u, wal_damage_trimmed(u->options.damage, out->first_lsn));
    wal_catalog_sweep(&u->catalog);
    event_info("segments_trimmed", "segments trimmed", log_text("dir", u->options.dir),
               log_uint("segments", out->segments), log_uint("bytes", out->bytes),
               log_uint("first_lsn", out->first_lsn));
    if (u->options.on_trimmed != NULL)
        u->options.on_trimmed(u->options.arg, out->first_lsn, out->position);
    return result;
}

/* 0 or -errno. After each step what is left is a copy that begins later. */
static int remove_all(const struct wal_upkeep *u)
{
    const struct vfs *fs = u->options.fs;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint64_t *bases;
    size_t count;
    int result = segment_list(fs, u->options.dir, &bases, &count);
    for (size_t i = 0; i < count && result == 0; i++) {
        segment_name(bases[i], name);
        vfs_path(path, u->options.dir, name);
        result = fs->unlink(fs, path);
        if (result == 0)
            result = fs->sync_dir(fs, u->options.dir);
    }
    free(bases);
    return result;
}

void wal_upkeep_forget(struct wal_upkeep *u)
{
    wal_upkeep_repaired(u, u->rounds.scrub.base_lsn); /* the scrubber stands in no segment any more */
    wal_catalog_free(&u->catalog);
}

void wal_upkeep_give_up(struct wal_upkeep *u, uint64_t next_lsn)
{
    wal_upkeep_forget(u);
    int result = remove_all(u);
    if (result < 0) {
        u->options.on_fatal(u->options.arg, "cannot remove the segments of a copy", result);
        return;
    }
    wal_upkeep_check(u, wal_damage_trimmed(u->options.damage, next_lsn));
    if (u->options.on_index_lost != NULL)
        u->options.on_index_lost(u->options.arg);
}

/* What keeps entries below next_lsn from going, by name. */
static void pack_holders(const struct wal_upkeep *u, uint64_t next_lsn, struct buf *out)
{
    msgpack_packer pk;
    char text[WAL_HOLD_TEXT];
    size_t count = 0;
    mp_packer(&pk, out);
    for (size_t i = 0; i < u->holds.count; i++)
        count += wal_hold_keeps(&u->holds.all[i], next_lsn);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < u->holds.count; i++) {
        if (!wal_hold_keeps(&u->holds.all[i], next_lsn))
            continue;
        wal_hold_text(&u->holds.all[i], text);
        mp_pack_cstr(&pk, text);
    }
}

static void pack_one(const char *text, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, text != NULL);
    if (text != NULL)
        mp_pack_cstr(&pk, text);
}

static bool reaches_closed_end(const struct wal_upkeep *u, uint64_t before)
{
    return u->gone.is_gone && before > u->gone.lsn;
}

/* What holds back the segment behind those that went, when it lies below `before`. */
static void pack_held_by(const struct wal_upkeep *u, size_t at, uint64_t before, struct buf *out)
{
    const struct wal_segment *s = at < u->catalog.count ? &u->catalog.all[at] : NULL;
    if (s != NULL && s->next_lsn == 0 && reaches_closed_end(u, before))
        pack_holders(u, u->gone.lsn + 1, out);
    else if (s == NULL || s->next_lsn == 0 || s->next_lsn > before)
        pack_one(NULL, out);
    else if (s->damaged)
        pack_one("a damaged segment header", out);
    else if (!wal_segment_is_marked(s, u->catalog.mark_end))
        pack_one("the durable mark", out);
    else
        pack_holders(u, s->next_lsn, out);
}

/* Gives up all holds of that name. */
static bool release(struct wal_upkeep *u, struct slice name)
{
    bool found = false;
    for (size_t i = u->holds.count; i-- > 0;) {
        if (!slice_is(name, u->holds.all[i].name))
            continue;
        wal_holds_remove(&u->holds, &u->holds.all[i]);
        found = true;
    }
    if (found)
        log_warn("holds are released by hand", log_slice("name", name));
    return found;
}

static void on_log_trim(struct wal_upkeep *u, const struct msg_log_trim *m, struct wal_upkeep_time now,
                        uint32_t *type, struct buf *answer)
{
    struct wal_trimmed trimmed = {0};
    struct buf held = {0};
    int result = 0;
    wal_holds_expire(&u->holds, now.real_ns);
    if (m->release.len > 0 && !m->dry_run && !release(u, m->release)) {
        refuse(type, answer, SH_NOT_FOUND, "there is no hold of that name", 0);
        return;
    }
    if (u->holds.dirty)
        write_holds(u);
    if (wal_catalog_refresh(&u->catalog) != SH_OK) {
        refuse(type, answer, SH_INTERNAL, "the log's folder cannot be read", 0);
        return;
    }
    size_t below = wal_retention_below(u->catalog.all, u->catalog.count, m->before, u->catalog.mark_end);
    size_t free = wal_retention_free(u->catalog.all, below, &u->holds);
    pack_held_by(u, free, m->before, &held);
    bool drops =
        reaches_closed_end(u, m->before) && free + 1 >= u->catalog.count && !wal_upkeep_gone_is_kept(u);
    if (!m->dry_run) {
        result = trim(u, free, &trimmed);
        u->drop_by_hand = drops && result == 0; /* the janitor tidies up next */
    } else {
        trimmed.segments = free;
        for (size_t i = 0; i < free; i++)
            trimmed.bytes += u->catalog.all[i].bytes;
    }
    struct msg_log_trim_reply reply = {
        .log = u->options.log,
        .first_lsn = m->dry_run && free < u->catalog.count ? u->catalog.all[free].base_lsn
                                                           : wal_catalog_first_lsn(&u->catalog),
        .segments = trimmed.segments,
        .bytes = trimmed.bytes,
        .held_by = buf_slice(&held),
        .drops = drops,
    };
    *type = MSG_log_trim_reply;
    msg_encode(MSG_log_trim_reply, &reply, answer);
    if (result < 0)
        refuse(type, answer, SH_INTERNAL, "a segment cannot be removed; walsvc's log says why", 0);
    buf_free(&held);
}

/* ---------------------------------------------------------------- retention */

static void tell_broken(const struct wal_upkeep *u, uint64_t most)
{
    char text[WAL_HOLD_TEXT];
    for (size_t i = 0; i < u->holds.count; i++) {
        const struct wal_hold *hold = &u->holds.all[i];
        if (!hold->broken || hold->kept_bytes <= most)
            continue;
        wal_hold_text(hold, text);
        event_error(
            "hold_broken",
            "a hold is broken: it kept more than wal.member_hold_max beyond its retention; its holder "
            "must begin anew",
            log_text("hold", text), log_uint("lsn", hold->lsn), log_uint("bytes", hold->kept_bytes));
    }
}

/* A jump ahead would age everything at once. Within a day somebody may have set the clock right. */
static void watch_clock(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    int64_t jump_ns = now.real_ns - u->looked.real_ns - (now.mono_ns - u->looked.mono_ns);
    u->looked = now;
    if (now.mono_ns >= u->ahead_until_ns)
        u->ahead_ns = 0;
    if (jump_ns > JUMP_NS) {
        u->ahead_ns += jump_ns;
        u->ahead_until_ns = now.mono_ns + AHEAD_NS;
    } else if (jump_ns < -JUMP_NS) {
        u->ahead_ns = u->ahead_ns > -jump_ns ? u->ahead_ns + jump_ns : 0;
    }
    if (jump_ns > JUMP_NS && u->options.settings.retention_age_ns > 0)
        event_error("clock_jumped",
                    "the wall clock has jumped ahead: what is too old by that alone is kept for a day",
                    log_text("dir", u->options.dir), log_uint("jump_s", (uint64_t)(jump_ns / NS_PER_S)));
}

/* Returns when to look again because of age (real time; INT64_MAX: not for that), or 0 when a call failed.
 */
static int64_t apply_retention(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    struct wal_retention rules = wal_upkeep_rules(u);
    struct wal_trimmed trimmed;
    if (rules.bytes == 0 && rules.age_ns == 0)
        return INT64_MAX;
    if (wal_catalog_refresh(&u->catalog) != SH_OK)
        return 0;
    const struct wal_catalog *c = &u->catalog;
    size_t due = wal_retention_due(c->all, c->count, &rules, c->mark_end, now.real_ns - u->ahead_ns);
    if (wal_retention_break(c->all, due, &u->holds, rules.member_hold_max) > 0)
        tell_broken(u, rules.member_hold_max);
    size_t free = wal_retention_free(c->all, due, &u->holds);
    if (free > 0 && trim(u, free, &trimmed) < 0)
        return 0;
    wal_upkeep_tell_horizon(u, rules.bytes);
    if (rules.age_ns == 0 || due > free || c->count == 0 || c->all[0].last_ns == 0)
        return INT64_MAX;
    return c->all[0].last_ns + rules.age_ns + u->ahead_ns + 1;
}

int64_t wal_upkeep_tidy(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    wal_holds_expire(&u->holds, now.real_ns);
    watch_clock(u, now);
    int64_t due_ns = apply_retention(u, now);
    if (due_ns == 0 || (u->holds.dirty && write_holds(u) < 0))
        return now.mono_ns + RETRY_NS;
    int64_t expiry_ns = wal_holds_due_ns(&u->holds), drop_ns = wal_upkeep_ask_drop(u, now);
    due_ns = drop_ns < due_ns ? drop_ns : due_ns;
    due_ns = expiry_ns < due_ns ? expiry_ns : due_ns;
    if (due_ns == INT64_MAX)
        return INT64_MAX;
    int64_t wait_ns = due_ns > now.real_ns ? due_ns - now.real_ns : 0;
    return now.mono_ns + (wait_ns < LOOK_NS ? wait_ns : LOOK_NS);
}

/* ---------------------------------------------------------------- questions */

static bool is_ours(const struct wal_upkeep *u, struct id16 log)
{
    return id16_is_zero(log) || id16_equal(log, u->options.log);
}

static void on_look(struct wal_upkeep *u, const struct msg_look *look, uint32_t *type, struct buf *answer)
{
    enum wal_look found = wal_upkeep_look(u, look->segment);
    if (found == WAL_LOOK_WHOLE && look->origin)
        found = wal_upkeep_differs(u, look->segment);
    const struct msg_look_reply reply = {.log = look->log, .segment = look->segment, .found = found};
    *type = MSG_look_reply;
    msg_encode(MSG_look_reply, &reply, answer);
}

void wal_upkeep_answer(struct wal_upkeep *u, uint32_t type, struct slice request, struct wal_upkeep_time now,
                       uint32_t *answer_type, struct buf *answer)
{
    union {
        struct msg_log_trim trim;
        struct msg_hold hold;
        struct msg_wal_info info;
        struct msg_look look;
    } m;
    enum sh_error error = msg_decode(type, request, &m);
    struct id16 log = type == MSG_log_trim ? m.trim.log
                      : type == MSG_hold   ? m.hold.log
                      : type == MSG_look   ? m.look.log
                                           : m.info.log;
    assert(type == MSG_log_trim || type == MSG_hold || type == MSG_wal_info || type == MSG_look);
    if (error != SH_OK) {
        refuse(answer_type, answer, error, "the message is not well-formed", 0);
    } else if (!is_ours(u, log)) {
        refuse(answer_type, answer, SH_NOT_FOUND, "walsvc does not hold that log", 0);
    } else if (type == MSG_log_trim) {
        on_log_trim(u, &m.trim, now, answer_type, answer);
    } else if (type == MSG_hold) {
        on_hold(u, &m.hold, now, answer_type, answer);
    } else if (type == MSG_look) {
        on_look(u, &m.look, answer_type, answer);
    } else if (wal_catalog_refresh(&u->catalog) != SH_OK) {
        refuse(answer_type, answer, SH_INTERNAL, "the log's folder cannot be read", 0);
    } else {
        *answer_type = MSG_wal_info_reply;
        wal_upkeep_info(u, &m.info, now, answer);
    }
}
