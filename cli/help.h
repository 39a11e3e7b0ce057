/* Texts made from opts.def. */
#ifndef IST_CLI_HELP_H
#define IST_CLI_HELP_H

#include <stdio.h>

#include "opts.h"

void ist_help_overview(FILE *to);
void ist_help_command(FILE *to, ist_command_id command);
/* The manual page as roff. */
void ist_help_man(FILE *to);
/* Completions for "bash" or "zsh"; false for another shell. */
bool ist_help_completions(FILE *to, const char *shell);

#endif
