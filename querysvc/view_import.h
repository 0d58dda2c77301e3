/* Rows that are made ready beside the view, in files of RocksDB's own format, and become readable all at
 * once, together with the version vector that goes with them (docs/adr/0012). Until then nothing of the view
 * has changed, and after a crash what was made ready is rubbish.
 *
 * Used by one thread at a time. */
#ifndef QUERYSVC_VIEW_IMPORT_H
#define QUERYSVC_VIEW_IMPORT_H

#include "vfs.h"
#include "view_apply.h"

struct view_import;

/* In a folder that is emptied first, and made. NULL: error says why. */
struct view_import *view_import_open(const struct vfs *fs, const char *dir, char error[VIEW_ERROR_MAX]);
/* A change that is merged with the row of that key, or, of what is not merged (VIEW_TIDY), the row. Keys
 * ascend. False: error; then it is only to be closed.
 */
bool view_import_add(struct view_import *import, struct view_store *store, struct slice key,
                     struct slice change, char error[VIEW_ERROR_MAX]);
/* Bytes on disk, about. */
uint64_t view_import_bytes(const struct view_import *import);
/* All of it, and the vector, become readable and are on disk, with what was written to the store before.
 * False: nothing of it, or all of it: the store is to be opened again. */
bool view_import_install(struct view_import *import, struct view_store *store,
                         const struct view_vector *vector, char error[VIEW_ERROR_MAX]);
/* Removes what is left of it. NULL: nothing happens. */
void view_import_close(struct view_import *import);

/* The other side of it: rows behind a key (empty: from the first on), as merge_in_piece takes them, but for
 * those about the view itself; in *rows, which is emptied first. *more: there are more. False: error. */
bool view_export_piece(struct view_store *store, struct slice behind, struct buf *rows, bool *more,
                       char error[VIEW_ERROR_MAX]);

/* Removes a folder and the files in it. False: something is left (logged). */
bool view_folder_remove(const struct vfs *fs, const char *dir);

#endif
