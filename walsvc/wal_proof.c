/* The file <data>/boot. Nothing here is fatal. */
#include "wal_proof.h"

#include <stdio.h>
#include <string.h>

#include "checked_text.h"
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
static bool is_same_boot(const struct wal_proof *proof)
{
    struct checked_text text;
    char *kernel;
    return proof->kernel[0] != 0 &&
           checked_text_read(&text, proof->fs, proof->data, name, first_line) == SH_OK &&
           checked_text_take(&text, "kernel", &kernel) && checked_text_at_end(&text) &&
           strcmp(kernel, proof->kernel) == 0;
}

void wal_proof_open(struct wal_proof *proof, const struct vfs *fs, const char *data, bool is_new)
{
    *proof = (struct wal_proof){.fs = fs, .data = data};
    read_kernel(proof->kernel);
    proof->waits = is_new || !is_same_boot(proof);
    if (is_new)
        wal_proof_settle(proof);
}

int wal_proof_settle(struct wal_proof *proof)
{
    struct buf lines = {0};
    if (!proof->waits)
        return 0;
    proof->waits = false;
    buf_printf(&lines, "%skernel %s\n", first_line, proof->kernel);
    int result = checked_text_write(&lines, proof->fs, proof->data, name);
    buf_free(&lines);
    if (!wal_is_full(result))
        return result;
    log_warn("the disk is full: the next start of this node asks the others again",
             log_text("dir", proof->data));
    return 0;
}
