/* The dashboard, as the linker has put its files into the program (CMakeLists.txt). The policy has browsers
 * load nothing but these, and ask nobody but this server; the icon is in the page. */
#include "obs_page.h"

#include <assert.h>
#include <string.h>

/* Named by the linker. */
#define FILE_OF(name) extern const char _binary_##name##_start[], _binary_##name##_end[]
FILE_OF(index_html);
FILE_OF(style_css);
FILE_OF(page_js);
FILE_OF(charts_js);
FILE_OF(events_js);
FILE_OF(replication_js);
FILE_OF(text_js);

static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
static const char html[] = "text/html; charset=utf-8", css[] = "text/css; charset=utf-8",
                  js[] = "text/javascript; charset=utf-8";

#define BYTES_OF(name) _binary_##name##_start, _binary_##name##_end
static const struct file {
    const char *path, *content_type, *begin, *end;
} files[] = {
    {"/", html, BYTES_OF(index_html)},
    {"/page/style.css", css, BYTES_OF(style_css)},
    {"/page/page.js", js, BYTES_OF(page_js)},
    {"/page/charts.js", js, BYTES_OF(charts_js)},
    {"/page/events.js", js, BYTES_OF(events_js)},
    {"/page/replication.js", js, BYTES_OF(replication_js)},
    {"/page/text.js", js, BYTES_OF(text_js)},
};

static const struct file *file_at(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

bool obs_page_has(const char *path)
{
    return file_at(path) != NULL;
}

void obs_page(const char *path, struct obs_http_response *response)
{
    const struct file *file = file_at(path);
    assert(file != NULL);
    response->content_type = file->content_type;
    response->policy = policy;
    buf_append(&response->body, file->begin, (size_t)(file->end - file->begin));
}
