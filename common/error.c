/* Names and texts of the errors. */
#include "shanghai_error.h"

const char *sh_error_name(enum sh_error error)
{
    switch (error) {
#define SH_ERROR_NAME(symbol, value, name, text)                                                             \
    case symbol:                                                                                             \
        return name;
        SH_ERRORS(SH_ERROR_NAME)
#undef SH_ERROR_NAME
    }
    return "unknown";
}

const char *sh_error_text(enum sh_error error)
{
    switch (error) {
#define SH_ERROR_TEXT(symbol, value, name, text)                                                             \
    case symbol:                                                                                             \
        return text;
        SH_ERRORS(SH_ERROR_TEXT)
#undef SH_ERROR_TEXT
    }
    return "unknown error";
}
