/* The file <data>/boot. Nothing here is fatal. */
#include "wal_proof.h"

#include <stdio.h>
#include <string.h>

#include "checked_text.h"
#include "failpoint.h"
#include "log.h"
#include "wal_quarantine.h"

static const char name[] = "boot", first_line[] = "shanghai boot 1\n";

static void read_kernel(char kernel[WAL_KERNEL_TEXT])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    kernel[0] = 0;
    if (file == NULL)
        return;
    if (fgets(kernel, WAL_KERNEL_TEXT, file) == NULL)
        kernel[0] = 0;
    kernel[strcspn(kernel, "\n")] = 0;
    fclose(file);
}

/* Without the kernel's word every start counts as one of the machine. */
static void read_file(struct wal_proof *proof)
{
    struct checked_text text;
    char *kernel, *copy;
    proof->waits = true;
    if (checked_text_read(&text, proof->fs, proof->data, name, first_line) != SH_OK ||
        !checked_text_take(&text, "kernel", &kernel))
        return;
    if (checked_text_take(&text, "copy", &copy)) {
        proof->forked = strcmp(copy, "forked") == 0;
        proof->is_copy = checked_text_at_end(&text) && (proof->forked || strcmp(copy, "behind") == 0);
        proof->waits = !proof->is_copy;
        return;
    }
    proof->waits = !checked_text_at_end(&text) || proof->kernel[0] == 0 || strcmp(kernel, proof->kernel) != 0;
}

void wal_proof_open(struct wal_proof *proof, const struct vfs *fs, const char *data, bool is_new)
{
    *proof = (struct wal_proof){.fs = fs, .data = data};
    read_kernel(proof->kernel);
    proof->waits = is_new;
    if (is_new)
        wal_proof_settle(proof);
    else
        read_file(proof);
}

/* copy: "" for no such line. 0 or -errno. */
static int write_file(const struct wal_proof *proof, const char *copy)
{
    struct buf lines = {0};
    buf_printf(&lines, "%skernel %s\n%s", first_line, proof->kernel, copy);
    int result = checked_text_write(&lines, proof->fs, proof->data, name);
    buf_free(&lines);
    return result;
}

int wal_proof_settle(struct wal_proof *proof)
{
    if (!proof->waits)
        return 0;
    proof->waits = false;
    int result = write_file(proof, "");
    if (!wal_is_full(result))
        return result;
    log_warn("the disk is full: the next start of this node asks the others again",
             log_text("dir", proof->data));
    return 0;
}

int wal_proof_begin_copy(struct wal_proof *proof, bool forked)
{
    int result = write_file(proof, forked ? "copy forked\n" : "copy behind\n");
    return failpoint_step("own_copy_begun", result);
}

int wal_proof_end_copy(struct wal_proof *proof)
{
    int result = write_file(proof, "");
    return failpoint_step("own_copy_ended", result);
}
