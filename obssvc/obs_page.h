/* The dashboard: the files of obssvc/page, which are in the program. */
#ifndef OBSSVC_OBS_PAGE_H
#define OBSSVC_OBS_PAGE_H

#include "obs_http.h"

bool obs_page_has(const char *path);
/* Answers with what is at such a path. */
void obs_page(const char *path, struct obs_http_response *response);

#endif
