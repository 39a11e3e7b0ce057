/* help.c: help, manual page and shell completions, all made from opts.def. */
#include "help.h"

#include <string.h>

#include "text.h"

enum { WIDTH = 80, INDENT = 28 };

static bool knows(ist_command_id command, const ist_opt *o) {
  return o->kind != IST_OPT_GROUP && (o->commands & 1u << command);
}

/* Prints words between column `at` and WIDTH; following lines begin at `indent`. */
static void put_wrapped(FILE *to, const char *text, int at, int indent) {
  bool line_start = true;
  while (*text) {
    int word = (int)strcspn(text, " ");
    if (!line_start && at + 1 + word > WIDTH) {
      fprintf(to, "\n%*s", indent, "");
      at = indent;
    } else if (!line_start) {
      fputc(' ', to);
      at++;
    }
    fprintf(to, "%.*s", word, text);
    line_start = false;
    at += word;
    text += word;
    text += strspn(text, " ");
  }
  fputc('\n', to);
}

/* What the option takes, what it means, its default. */
static void describe(const ist_opt *o, const ist_args *defaults, char *out, size_t cap) {
  char value[96], expected[256] = "";
  ist_opt_default(o, defaults, value, sizeof value);
  if (o->kind == IST_OPT_CHOICE && strchr(o->domain, '|'))
    ist_opt_expected(o, expected, sizeof expected);
  bool required = !strcmp(value, IST_OPT_REQUIRED), none = !*value || !strcmp(value, "none");
  const char *before = required ? " (required)" : none ? "" : " (default: ";
  snprintf(out, cap, "%s%s%s%s%s%s", o->help, *expected ? "; " : "", expected, before,
           required || none ? "" : value, required || none ? "" : ")");
}

static void put_option(FILE *to, const ist_opt *o, const ist_args *defaults) {
  char left[64], text[512];
  int n = snprintf(left, sizeof left, o->letter ? "  -%c, " : "      ", o->letter);
  snprintf(left + n, sizeof left - (size_t)n,
           o->kind == IST_OPT_SWITCH ? "--[no-]%s%s%s" : "--%s%s%s", o->name,
           ist_opt_takes_value(o) ? " " : "", o->metavar);
  describe(o, defaults, text, sizeof text);
  n = (int)strlen(left);
  if (n >= INDENT)
    fprintf(to, "%s\n%*s", left, INDENT, "");
  else
    fprintf(to, "%-*s", INDENT, left);
  put_wrapped(to, text, INDENT, INDENT);
}

static void put_examples(FILE *to, const char *examples) {
  for (const char *p = examples; *p;) {
    int n = (int)strcspn(p, "\n");
    fprintf(to, "  %.*s\n", n, p);
    p += n + (p[n] == '\n');
  }
}

void ist_help_overview(FILE *to) {
  fprintf(to,
          "ist %s: fine-tunes the language model you already run (a GGUF file or a\n"
          "Hugging Face folder), in the memory you already have, and shows which layers\n"
          "matter.\n\n"
          "usage: ist COMMAND [options]\n\n",
          ist_version());
  for (int i = 0; i < IST_N_COMMANDS; i++)
    fprintf(to, "  %-12s%s\n", ist_commands[i].name, ist_commands[i].summary);
  fprintf(to, "  %-12s%s\n  %-12s%s\n\n", "help", "show the options of a command: ist help train",
          "version", "show the version");
  fputs(
      "other options:\n"
      "  --man                       print the manual page\n"
      "  --completions SHELL         print completions for bash or zsh\n\n"
      "exit status: 0 done, 1 failed, 2 a line that makes no sense, 130\n"
      "(143, 129) interrupted (terminated, its terminal closed) after a clean save.\n"
      "Results go to standard output, all else to standard error.\n",
      to);
}

void ist_help_command(FILE *to, ist_command_id command) {
  const ist_command *c = &ist_commands[command];
  const char *group = NULL;
  ist_args defaults;
  ist_args_init(&defaults);
  fprintf(to, "ist %s: %s\n\nusage: ist %s [options]%s%s\n\n", c->name, c->summary, c->name,
          *c->arguments ? " " : "", c->arguments);
  put_wrapped(to, c->detail, 0, 0);
  fputc('\n', to);
  put_examples(to, c->example);
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    if (o->kind == IST_OPT_GROUP) group = o->help;
    if (!knows(command, o)) continue;
    if (group) fprintf(to, "\n%s\n", group);
    group = NULL;
    put_option(to, o, &defaults);
  }
}

/* ---- Manual page -------------------------------------------------------------- */

static void put_roff(FILE *to, const char *text) {
  for (; *text; text++) {
    if (*text == '-')
      fputs("\\-", to);
    else if (*text == '\\')
      fputs("\\e", to);
    else if (*text == '\n')
      fputs("\n.br\n", to);
    else
      fputc(*text, to);
  }
  fputc('\n', to);
}

static void put_roff_word(FILE *to, const char *word) {
  for (; *word; word++) fputs(*word == '-' ? "\\-" : (char[]){*word, 0}, to);
}

static void put_roff_name(FILE *to, const char *prefix, const char *name) {
  fputs("\\fB", to);
  put_roff_word(to, prefix);
  put_roff_word(to, name);
  fputs("\\fR", to);
}

static void put_roff_option(FILE *to, const ist_opt *o, const ist_args *defaults) {
  char text[512];
  fputs(".TP\n", to);
  if (o->letter) fprintf(to, "\\fB\\-%c\\fR, ", o->letter);
  put_roff_name(to, o->kind == IST_OPT_SWITCH ? "--[no-]" : "--", o->name);
  if (ist_opt_takes_value(o)) fprintf(to, " \\fI%s\\fR", o->metavar);
  fputc('\n', to);
  describe(o, defaults, text, sizeof text);
  put_roff(to, text);
}

static bool has_option(ist_command_id command, const char *name) {
  for (int i = 0; i < ist_n_opts; i++)
    if (knows(command, &ist_opts[i]) && !strcmp(ist_opts[i].name, name)) return true;
  return false;
}

static void put_roff_plan(FILE *to) {
  const char *before = "";
  fputs(".PP\nThe options of \\fBist train\\fR but for ", to);
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    if (!knows(IST_CMD_TRAIN, o) || has_option(IST_CMD_PLAN, o->name)) continue;
    fputs(before, to);
    put_roff_name(to, "--", o->name);
    before = ", ";
  }
  fputs("; and ", to);
  put_roff_name(to, "--", "json");
  fputs(" and ", to);
  put_roff_name(to, "--", "all");
  fputs(".\n", to);
}

static void put_roff_command(FILE *to, ist_command_id command, const ist_args *defaults) {
  const ist_command *c = &ist_commands[command];
  fprintf(to, ".SH IST %s\n\\fBist ", c->name);
  put_roff_word(to, c->name);
  fprintf(to, "\\fR [options]%s%s\n.PP\n", *c->arguments ? " " : "", c->arguments);
  put_roff(to, c->detail);
  fputs(".PP\n.nf\n", to);
  for (const char *p = c->example; *p;) {
    int n = (int)strcspn(p, "\n");
    char one[128];
    snprintf(one, sizeof one, "%.*s", n, p);
    put_roff(to, one);
    p += n + (p[n] == '\n');
  }
  fputs(".fi\n", to);
  if (command == IST_CMD_PLAN) {
    put_roff_plan(to);
    return;
  }
  for (int i = 0; i < ist_n_opts; i++)
    if (knows(command, &ist_opts[i]) && ist_opts[i].commands != (1u << IST_N_COMMANDS) - 1)
      put_roff_option(to, &ist_opts[i], defaults);
}

void ist_help_man(FILE *to) {
  ist_args defaults;
  ist_args_init(&defaults);
  fprintf(to,
          ".TH IST 1 \"\" \"ist %s\" \"User Commands\"\n.SH NAME\n"
          "ist \\- fine\\-tune a language model with Importance\\-aware Sparse Tuning\n"
          ".SH SYNOPSIS\n.B ist\n\\fICOMMAND\\fR [options]\n.SH DESCRIPTION\n",
          ist_version());
  fputs(
      "Fine\\-tunes the language model you already run (a GGUF file or a Hugging Face folder) on\n"
      "the CPU, in the memory you already have, and shows which layers matter.\n.PP\nCommands:\n",
      to);
  for (int i = 0; i < IST_N_COMMANDS; i++) {
    fputs(".TP\n.B ", to);
    put_roff(to, ist_commands[i].name);
    put_roff(to, ist_commands[i].summary);
  }
  for (int i = 0; i < IST_N_COMMANDS; i++) put_roff_command(to, i, &defaults);
  fputs(".SH EVERY COMMAND\n", to);
  for (int i = 0; i < ist_n_opts; i++)
    if (ist_opts[i].commands == (1u << IST_N_COMMANDS) - 1)
      put_roff_option(to, &ist_opts[i], &defaults);
  fputs(
      ".SH EXIT STATUS\n0 done, 1 failed, 2 a command line that makes no sense, 130 (143, 129) "
      "interrupted\n"
      "(terminated, its terminal closed) after a clean save.\n"
      ".SH ENVIRONMENT\n\\fBNO_COLOR\\fR: no colours. \\fBLC_ALL\\fR, \\fBLC_CTYPE\\fR, "
      "\\fBLANG\\fR: blocks\n"
      "are drawn where they name UTF\\-8. \\fBIST_ISA\\fR: the instruction set to use in place of "
      "the\n"
      "best. \\fBTMPDIR\\fR: where scratch files without a name go (/var/tmp).\n",
      to);
}

/* ---- Completions --------------------------------------------------------------- */

static void put_names(FILE *to, ist_command_id command) {
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    if (!knows(command, o)) continue;
    fprintf(to, " --%s", o->name);
    if (o->kind == IST_OPT_SWITCH) fprintf(to, " --no-%s", o->name);
  }
}

static void put_choices(FILE *to, const ist_opt *o) {
  size_t len;
  const char *choice;
  for (int i = 0; (choice = ist_opt_choice(o, i, &len)); i++)
    fprintf(to, "%s%.*s", i ? " " : "", (int)len, choice);
}

/* One arm of the case over "command option": how the value is completed. */
static void put_bash_values(FILE *to, ist_command_id command) {
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    if (!knows(command, o) || !ist_opt_takes_value(o)) continue;
    const char *name = ist_commands[command].name;
    fputs("    ", to);
    if (o->letter) fprintf(to, "'%s -%c'|", name, o->letter);
    fprintf(to, "'%s --%s') ", name, o->name);
    if (o->kind == IST_OPT_CHOICE) {
      fputs("COMPREPLY=($(compgen -W '", to);
      put_choices(to, o);
      fputs("' -- \"$word\"));", to);
    } else if (o->kind == IST_OPT_FILE) {
      fputs("COMPREPLY=($(compgen -f -- \"$word\"));", to);
    } else if (o->kind == IST_OPT_DIR) {
      fputs("COMPREPLY=($(compgen -d -- \"$word\"));", to);
    }
    fputs(" return;;\n", to);
  }
}

static void put_bash(FILE *to) {
  fputs(
      "# bash completion for ist; made by: ist --completions bash\n"
      "_ist() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} "
      "command=${COMP_WORDS[1]}\n"
      "  compopt -o filenames 2>/dev/null\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W '",
      to);
  for (int i = 0; i < IST_N_COMMANDS; i++) fprintf(to, "%s ", ist_commands[i].name);
  fputs(
      "help version --help --version --man --completions' -- \"$word\"))\n    return\n  fi\n"
      "  case \"$command $before\" in\n",
      to);
  for (int i = 0; i < IST_N_COMMANDS; i++) put_bash_values(to, i);
  fputs(
      "    'ist --completions') COMPREPLY=($(compgen -W 'bash zsh' -- \"$word\")); return;;\n  "
      "esac\n"
      "  if [[ $word != -* ]]; then\n    COMPREPLY=($(compgen -f -- \"$word\"))\n    return\n  fi\n"
      "  case $command in\n",
      to);
  for (int i = 0; i < IST_N_COMMANDS; i++) {
    fprintf(to, "    %s) COMPREPLY=($(compgen -W '", ist_commands[i].name);
    put_names(to, i);
    fputs("' -- \"$word\"));;\n", to);
  }
  fputs("  esac\n}\ncomplete -F _ist ist\n", to);
}

/* Text inside a single-quoted zsh specification, where [ ] : ' are special. */
static void put_zsh_text(FILE *to, const char *text) {
  for (; *text; text++) {
    if (*text == '\'')
      fputs("'\\''", to);
    else if (strchr("[]:\\", *text))
      fprintf(to, "\\%c", *text);
    else
      fputc(*text, to);
  }
}

static void put_zsh_option(FILE *to, const ist_opt *o, const char *prefix, const char *name) {
  fprintf(to, " \\\n        '%s%s%s[", prefix, name,
          ist_opt_takes_value(o) && prefix[1] ? "=" : "");
  put_zsh_text(to, o->help);
  fputc(']', to);
  if (ist_opt_takes_value(o)) {
    fputc(':', to);
    put_zsh_text(to, o->metavar);
    fputc(':', to);
  }
  if (o->kind == IST_OPT_CHOICE) {
    fputc('(', to);
    put_choices(to, o);
    fputc(')', to);
  }
  if (o->kind == IST_OPT_FILE) fputs("_files", to);
  if (o->kind == IST_OPT_DIR) fputs("_files -/", to);
  fputc('\'', to);
}

static void put_zsh(FILE *to) {
  fputs(
      "#compdef ist\n# zsh completion for ist; made by: ist --completions zsh\n"
      "_ist() {\n  local -a commands\n  commands=(\n",
      to);
  for (int i = 0; i < IST_N_COMMANDS; i++)
    fprintf(to, "    '%s:%s'\n", ist_commands[i].name, ist_commands[i].summary);
  fputs(
      "    'help:show the options of a command'\n    'version:show the version'\n  )\n"
      "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n",
      to);
  for (int c = 0; c < IST_N_COMMANDS; c++) {
    fprintf(to, "    %s)\n      _arguments -s", ist_commands[c].name);
    for (int i = 0; i < ist_n_opts; i++) {
      const ist_opt *o = &ist_opts[i];
      if (!knows(c, o)) continue;
      put_zsh_option(to, o, "--", o->name);
      if (o->kind == IST_OPT_SWITCH) put_zsh_option(to, o, "--no-", o->name);
      if (o->letter) put_zsh_option(to, o, "-", (char[]){o->letter, 0});
    }
    if (ist_commands[c].most) fprintf(to, " \\\n        '*:%s:_files'", "argument");
    fputs(" ;;\n", to);
  }
  fputs("  esac\n}\n_ist \"$@\"\n", to);
}

bool ist_help_completions(FILE *to, const char *shell) {
  if (!strcmp(shell, "bash"))
    put_bash(to);
  else if (!strcmp(shell, "zsh"))
    put_zsh(to);
  else
    return false;
  return true;
}
