/* ist.h: the public interface of libist.
 *
 * libist fine-tunes a language model (GGUF or Hugging Face folder) with Importance-aware Sparse
 * Tuning (IST, Yao et al., EMNLP 2024 Findings, arXiv 2410.11772), on the CPU,
 * in about the memory it takes to run it.
 *
 * Conventions
 * - Every call that can fail returns an ist_status and fills an optional
 *   ist_error (may be NULL) that names the file, tensor or field, what was
 *   found and what was expected. The library never exits, prints or aborts on
 *   input, and installs no signal handler.
 * - Public structs that a caller fills begin with `size`; set them with their
 *   *_init function, so that fields added later keep their defaults.
 * - "Owned by the caller" means the caller frees; "borrowed until X" means the
 *   pointer is valid until X is called. Freeing or closing NULL is fine.
 * - Sizes are int64_t. Letters: N packed tokens, T positions of a sequence,
 *   V vocabulary, L layers, D model width, F feed-forward width, H query heads,
 *   K key/value heads, E head size, R rank. Weights are (out, in), row-major.
 * - One model may be used by one trainer or generator at a time; different
 *   models may be used from different threads.
 */
#ifndef IST_H
#define IST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define IST_API __attribute__((visibility("default")))
#else
#define IST_API
#endif

#define IST_VERSION_MAJOR 0
#define IST_VERSION_MINOR 1
#define IST_VERSION_PATCH 0

/* "0.1.0"; static storage. */
IST_API const char *ist_version(void);

/* ---- Status and errors ------------------------------------------------- */

typedef enum ist_status {
  IST_OK = 0,
  IST_ERR_ARG,         /* an argument or option that makes no sense */
  IST_ERR_IO,          /* the operating system refused (open, read, write, ...) */
  IST_ERR_FORMAT,      /* a file that is not what it claims to be */
  IST_ERR_UNSUPPORTED, /* a valid file or request that libist cannot serve */
  IST_ERR_DATA,        /* training data that cannot be used */
  IST_ERR_MISMATCH,    /* a checkpoint or adapter of another model or run */
  IST_ERR_NOMEM,       /* memory, or a memory limit that cannot be met */
  IST_ERR_NONFINITE,   /* NaN or Inf, too many times in a row */
  IST_ERR_INTERNAL     /* a defect in libist */
} ist_status;

typedef struct ist_error {
  ist_status code;
  char message[1024]; /* one line, no trailing newline, UTF-8 */
  char hint[512];     /* what to do about it, or "" */
} ist_error;

/* A short English name ("ok", "input/output", ...); static storage. */
IST_API const char *ist_status_name(ist_status status);

/* ---- Log ---------------------------------------------------------------- */

typedef enum ist_log_level { IST_LOG_DEBUG, IST_LOG_INFO, IST_LOG_WARN } ist_log_level;
typedef void (*ist_log_fn)(void *user, ist_log_level level, const char *message);

/* Sends the library's messages to `fn` (NULL: nowhere, the default). Process-wide. */
IST_API void ist_log_set(ist_log_fn fn, void *user);

/* Number of threads used from now on (0: all processors). Process-wide. */
IST_API void ist_set_threads(int n);
IST_API int ist_get_threads(void);

/* ---- Model --------------------------------------------------------------- */

typedef struct ist_model ist_model;

typedef enum ist_compute { IST_COMPUTE_AUTO, IST_COMPUTE_F32, IST_COMPUTE_BF16 } ist_compute;
typedef enum ist_backend_kind { IST_BACKEND_CPU, IST_BACKEND_REFERENCE } ist_backend_kind;

typedef struct ist_model_options {
  size_t size;
  ist_compute compute;      /* AUTO: what is faster on this CPU */
  ist_backend_kind backend; /* REFERENCE: the slow, plain truth (f32 only) */
  /* Float weights are quantised on opening: "q8_0", "q4_0", "q4_k"; "none" or NULL: not.
   * In memory, or in a file: used where it was made from the same model, else written. */
  const char *base_type, *base_cache;
} ist_model_options;
IST_API void ist_model_options_init(ist_model_options *o);

/* Opens a GGUF file (of a split one the first) or a Hugging Face folder; its weights stay mapped
 * and are never changed. Options may be NULL. The model is owned by the caller. */
IST_API ist_status ist_model_open(ist_model **out, const char *path,
                                  const ist_model_options *options, ist_error *err);
IST_API void ist_model_close(ist_model *m);

typedef struct ist_model_info {
  char name[128], architecture[32], quantisation[32], compute[16], isa[32];
  int64_t L, D, F, H, K, E, V, context;
  int64_t parameters, file_bytes;
  bool tied_output;
} ist_model_info;
IST_API void ist_model_get_info(const ist_model *m, ist_model_info *info);

/* Puts an adapter on the model: a Hugging Face PEFT directory (or the output
 * directory of a run), or a GGUF adapter file. NULL takes it off. */
IST_API ist_status ist_model_set_adapter(ist_model *m, const char *path, ist_error *err);

/* Text <-> tokens. *ids / *text are fresh memory, freed by ist_free_memory. With
 * `special`, the texts of control tokens are those tokens. */
IST_API ist_status ist_tokenize(const ist_model *m, const char *text, size_t len, bool special,
                                int32_t **ids, int64_t *n, ist_error *err);
IST_API ist_status ist_detokenize(const ist_model *m, const int32_t *ids, int64_t n, bool special,
                                  char **text, size_t *len, ist_error *err);
IST_API void ist_free_memory(void *p);

/* A tokenizer without its model: from a GGUF file, of which the tokenizer's keys are
 * enough, or from a Hugging Face folder with tokenizer.json. */
typedef struct ist_tokenizer ist_tokenizer;
IST_API ist_status ist_tokenizer_open(ist_tokenizer **out, const char *path, ist_error *err);
IST_API void ist_tokenizer_free(ist_tokenizer *t);
/* As ist_tokenize and ist_detokenize. */
IST_API ist_status ist_tokenizer_tokenize(const ist_tokenizer *t, const char *text, size_t len,
                                          bool special, int32_t **ids, int64_t *n, ist_error *err);
IST_API ist_status ist_tokenizer_detokenize(const ist_tokenizer *t, const int32_t *ids, int64_t n,
                                            bool special, char **text, size_t *len, ist_error *err);
/* Puts around the ids what stands around every text of the model: BOS, EOS, or the
 * tokens of a post-processor. *ids is moved. */
IST_API ist_status ist_tokenizer_add_ends(const ist_tokenizer *t, int32_t **ids, int64_t *n,
                                          ist_error *err);
/* One token as it stands inside a text, and whether it is one of the special ones,
 * which plain text never becomes. */
IST_API ist_status ist_tokenizer_token(const ist_tokenizer *t, int32_t id, char **text, size_t *len,
                                       bool *special, ist_error *err);

/* Logits (n, V) of every position of one sequence; `logits` is the caller's. */
IST_API ist_status ist_model_logits(ist_model *m, const int32_t *ids, int64_t n, float *logits,
                                    ist_error *err);

/* A description of a file or directory as JSON text (GGUF model or adapter, model folder,
 * safetensors, PEFT directory, run directory, checkpoint); no weights are read.
 * Free with ist_free_memory. */
IST_API ist_status ist_inspect(const char *path, char **json, ist_error *err);

/* The model families as JSON text: for each its title, its model_type in a Hugging Face
 * folder and its general.architecture in a GGUF (null: llama.cpp does not know it).
 * Free with ist_free_memory. */
IST_API ist_status ist_families(char **json, ist_error *err);

/* ---- Training ---------------------------------------------------------------- */

/* Every option of a run. Strings are borrowed until ist_trainer_open returns.
 * Names, defaults, JSON keys and what may change on resume: src/train/options.def. */
typedef struct ist_train_options {
  size_t size;
  /* data */
  const char *train_path;    /* data files, "a.jsonl=2,b.csv" (docs/data.md); required */
  const char *valid_path;    /* NULL: split from the training data */
  const char *template_name; /* auto, model, chatml, alpaca, paper, none */
  const char *loss_on; /* completion (every reply), all (the whole text), last (the last reply) */
  int64_t max_tokens;  /* longer samples are cut */
  int64_t valid_examples; /* -1: min(120, 10 %), all of valid_path; 0: none */
  int64_t probe_examples; /* -1: min(256, max(16, 2 %)), none below 200 samples; 0: probe on
                           * training data */
  int64_t limit;          /* use the first records of each file only; 0: all */
  /* method */
  const char *method; /* lora, dora, parallel, series, prefix */
  /* As PEFT's target_modules: names of modules, ends of their paths ("q,k,v", "layers.3.mlp.
   * up_proj"), one regular expression for whole paths, or "all-linear". */
  const char *targets;
  int64_t rank; /* parallel, series: width of the bottleneck; prefix: virtual tokens a layer */
  double alpha, dropout;
  bool rslora;                              /* adapters count alpha / sqrt(rank) */
  const char *init;                         /* default, gaussian */
  bool lora_bias;                           /* lora: B has a bias, as PEFT's lora_bias */
  const char *rank_pattern, *alpha_pattern; /* a module's own: "q=8,layers.1.mlp.down_proj=32" */
  const char *exclude;                      /* modules that targets names, but not these */
  const char *layers_to_transform;          /* only in these layers: "0-3,7"; NULL: in all */
  const char *layers_pattern; /* names of the lists of layers, where a path has several numbers */
  const char *activation;     /* of a bottleneck: relu, tanh, gelu, silu */
  double scaling;             /* of a bottleneck */
  bool learned_scaling;       /* ... which then is where it starts */
  const char *dora_suppress;  /* interpolate, paper: see docs/methods.md */
  const char *dora_dropout;   /* shared, peft: see docs/methods.md */
  /* selection */
  /* ist, random, all, fixed:0,3,7, scores:FILE (an earlier run's importance.json) */
  const char *selector;
  const char *scores; /* of scores:FILE: frozen (no probes), warm-start (IST goes on from them) */
  double active_ratio, suppress_ratio, suppress_factor;
  int64_t probe_every, probe_candidates, probe_batch, redraw_every;
  int64_t burn_in;     /* ist: steps in which all layers are as likely, probes included */
  const char *moments; /* of frozen layers: keep, drop, decay */
  const char *reward;  /* exp, normalised */
  /* Negative: the reward's own, 10 and no limit for exp, 0.4 and 4 for normalised.
   * A limit of 0 is none. */
  double score_step, score_limit;
  /* optimizer */
  double lr;
  double lr_ratio;         /* LoRA+: B and vectors learn this many times as fast as A */
  bool lr_by_active;       /* divide lr by the active ratio (see docs/method.md) */
  const char *lr_schedule; /* linear, cosine, constant */
  int64_t warmup_steps;    /* -1: 3 % of the steps, at most 100 */
  double beta1, beta2, eps, weight_decay, clip_norm;
  /* A loss or gradient norm that lies more than spike_z standard deviations above the mean of
   * the last 64 steps is a spike (0: none is): marked, and with skip_spikes the step changes
   * nothing. */
  double spike_z;
  bool skip_spikes;
  int64_t batch; /* samples an optimizer step */
  double epochs;
  int64_t steps; /* 0: by epochs */
  uint64_t seed;
  /* validation, saving */
  int64_t eval_every; /* steps; 0: at the end of every epoch, -1: only at the end */
  int64_t save_every; /* steps between checkpoints; 0: only at the end */
  int64_t keep_checkpoints;
  int64_t patience;   /* evaluations without improvement before stopping; 0: never */
  const char *output; /* directory; NULL: nothing is written, and the best adapter not kept */
  bool resume;        /* continue from the newest whole checkpoint in `output` */
  bool overwrite;     /* allow an output directory that holds another run or an adapter */
  /* engine */
  int64_t micro_tokens;  /* tokens a pass; 0: chosen by the plan */
  const char *recompute; /* auto, none, mlp, layer */
  const char *order;     /* auto, token, layer */
  int64_t max_memory;    /* bytes; 0: what is free, less a margin */
  double depth_budget;   /* 0: off; f: three steps of four draw among layers >= f*L */
} ist_train_options;
/* Fills in the defaults. */
IST_API void ist_train_options_init(ist_train_options *o);
/* A preset over what is there: "paper" sets what the authors' run had and keeps the files;
 * "default" sets all as ist_train_options_init does. */
IST_API ist_status ist_train_options_preset(ist_train_options *o, const char *preset,
                                            ist_error *err);

typedef struct ist_trainer ist_trainer;

/* Reads the data, plans the memory, reserves it, and restores the newest
 * checkpoint where options->resume asks for it. The model is borrowed until
 * ist_trainer_close and carries the trainer's adapters until then. A model that
 * carries an adapter (ist_model_set_adapter) is trained on from there in a new run:
 * targets, rank and alpha are then the adapter's. Nothing is
 * written before everything was checked. */
IST_API ist_status ist_trainer_open(ist_trainer **out, ist_model *m,
                                    const ist_train_options *options, ist_error *err);
IST_API void ist_trainer_close(ist_trainer *t);

typedef struct ist_train_info {
  int64_t total_steps, done_steps, steps_per_epoch;
  int64_t n_train, n_valid, n_probe, n_cut, n_dropped;
  bool probe_on_train, resumed;
  bool probes;                      /* the selector learns from probes as the run goes */
  int64_t trainable, active_layers; /* parameters in all layers; layers a step */
  int64_t micro_tokens;
  int64_t planned_bytes; /* expected peak, the model file's pages included */
  double lr;             /* peak learning rate in force */
  const char *template_name, *recompute, *order; /* resolved; static storage */
  /* What is trained: the options', or of the adapter that the model carried. Borrowed until
   * ist_trainer_close. */
  const char *method, *targets;
  int64_t rank;
  double alpha;
  bool finished; /* all steps are done, or patience ran out: what is left is ist_trainer_finish */
} ist_train_info;
IST_API void ist_trainer_get_info(const ist_trainer *t, ist_train_info *info);
/* The plan as JSON text (arenas, bytes, schedule); free with ist_free_memory. */
IST_API ist_status ist_trainer_plan(const ist_trainer *t, char **json, ist_error *err);
/* The plan for a model and options without reading weights or training data
 * (lengths: max_tokens); free with ist_free_memory. `model` may be NULL; a base type counts
 * with its sizes in memory, nothing is quantised and base_cache is not looked at. */
IST_API ist_status ist_plan(const char *model_path, const ist_model_options *model,
                            const ist_train_options *options, char **json, ist_error *err);

typedef struct ist_step_report {
  int64_t step; /* finished optimizer steps, this one included */
  double epoch, loss, lr, grad_norm;
  int64_t tokens, targets; /* real tokens; supervised ones */
  double seconds, probe_seconds;
  bool skipped;               /* loss or gradients were not finite, or a spike: nothing changed */
  bool spike;                 /* see spike_z */
  double loss_z, grad_norm_z; /* standard deviations above the mean of the last 64 steps */
  bool probed, evaluated, saved, improved, finished;
  double valid_loss; /* when evaluated */
  int64_t L;
  const uint8_t *active;    /* (L) borrowed until the next call */
  const double *importance; /* (L) sigmoid(-score) */
  const int64_t *observed;  /* (L) probe observations */
} ist_step_report;

/* One optimizer step with the probe, evaluation and checkpoint that fall due. IST_ERR_ARG
 * after the last one (ist_train_info.finished). */
IST_API ist_status ist_trainer_step(ist_trainer *t, ist_step_report *report, ist_error *err);
/* Mean loss over the supervised tokens of the validation set, with the adapter as it is: after
 * ist_trainer_finish the best one. IST_ERR_ARG where the run has no validation samples. */
IST_API ist_status ist_trainer_validate(ist_trainer *t, double *loss, ist_error *err);
/* Writes a checkpoint now. IST_ERR_ARG where options->output is NULL. */
IST_API ist_status ist_trainer_save(ist_trainer *t, ist_error *err);
/* Restores the best adapter (where validation chose one), writes the adapter in
 * Hugging Face PEFT's format and as adapter.gguf, importance.json, settings.json.
 * IST_ERR_ARG where options->output is NULL. Ends the run: ist_trainer_step and ist_trainer_save
 * return IST_ERR_ARG from then on, ist_trainer_validate measures what was written. */
IST_API ist_status ist_trainer_finish(ist_trainer *t, ist_error *err);

/* Peak resident memory of this process (VmHWM), in bytes; 0 where unknown. */
IST_API int64_t ist_peak_memory(void);

/* ---- Merging and comparing ---------------------------------------------------- */

typedef struct ist_merge_options {
  size_t size;
  const char *adapter; /* a PEFT directory or a GGUF adapter; NULL: none, only convert */
  const char *output;  /* NAME.gguf, or else a Hugging Face folder */
  /* GGUF: the type of the matrices ("Q4_K", ...; NULL: each its own). A Hugging Face
   * folder: F32, F16 or BF16 (NULL: each its own, BF16 where the base is a GGUF). */
  const char *type;
  int64_t shard_bytes; /* Hugging Face: most bytes of weights in one file */
  bool overwrite;      /* replace what is there; other files of a folder stay */
} ist_merge_options;
IST_API void ist_merge_options_init(ist_merge_options *o);

/* What became of one tensor, relative to the norm of the base's: `change` is what the
 * adapter did, `error` what storing the result in `type` added. Measured where values
 * were computed; 0 where bytes were copied. */
typedef struct ist_merge_tensor {
  const char *name, *type; /* borrowed during the call */
  int64_t layer;           /* -1: none */
  bool merged;             /* the adapter changes it */
  double change, error;
} ist_merge_tensor;
typedef void (*ist_merge_fn)(void *user, const ist_merge_tensor *tensor);
typedef struct ist_merge_result {
  int64_t tensors, merged, bytes;
  double change, error; /* over the tensors whose values were computed */
} ist_merge_result;
/* Writes the model with the adapter merged into its weights, a tensor at a time.
 * Metadata and tokenizer are kept. `each` (may be NULL) is called once a tensor. */
IST_API ist_status ist_merge(const ist_model *m, const ist_merge_options *options,
                             ist_merge_fn each, void *user, ist_merge_result *result,
                             ist_error *err);

/* How far one tensor moved from A to B. Two models: of the weights. Two adapters: of what they
 * add to the weights (scale B A). Where one side lacks the tensor it counts as zero there. */
typedef struct ist_diff_tensor {
  const char *name;                 /* borrowed during the call */
  int64_t layer;                    /* -1: none */
  double norm_a, norm_b, norm_diff; /* L2; norm_diff: of B - A */
  double cosine;                    /* between A's and B's values; NaN where one is 0 */
  bool only_a, only_b;              /* the other side lacks it */
} ist_diff_tensor;
typedef void (*ist_diff_fn)(void *user, const ist_diff_tensor *tensor);
/* Compares two GGUF models, or two adapters of one format (PEFT directories or GGUF); `each`,
 * which is not NULL, is called once a tensor: those of A, then those that only B has. */
IST_API ist_status ist_diff(const char *a, const char *b, ist_diff_fn each, void *user,
                            ist_error *err);

/* The path of the mapped file that `address` lies in, or NULL. For a handler of SIGBUS
 * (si_addr), which is what a process gets when a model file is truncated while it is in
 * use; the library installs none itself. Safe to call in a signal handler. */
IST_API const char *ist_lost_file(const void *address);

/* Removes the temporary files and folders that this process is writing, for a handler of a
 * signal that ends it: what was begun is not left behind. Safe to call in a signal handler. */
IST_API void ist_discard_unfinished(void);

/* ---- Evaluation and generation --------------------------------------------- */

/* What evaluation reads; data_path, template_name, loss_on and max_tokens as in
 * ist_train_options, one file. Texts are borrowed during the call. */
typedef struct ist_eval_options {
  size_t size;
  const char *data_path, *template_name, *loss_on;
  int64_t max_tokens;
  int64_t limit;        /* the first records only; 0: all */
  int64_t micro_tokens; /* tokens a pass, at least those of the longest sample (0: just these) */
  int64_t max_new;      /* ist_eval_exact: longest answer in tokens */
} ist_eval_options;
IST_API void ist_eval_options_init(ist_eval_options *o);

/* The data doctor: what training would see of o->data_path, and what it would trip over,
 * as JSON text (free with ist_free_memory): counts, records that training refuses with
 * their places, copies, empty answers, lengths, and the first `show` samples as runs of
 * text that are learned and not. Goes on behind bad records: they are no error, nor is a file that
 * cannot be read to its end ("stopped" says why, else it is null). */
IST_API ist_status ist_data_check(const ist_model *m, const ist_eval_options *o, int64_t show,
                                  char **json, ist_error *err);

typedef struct ist_loss_result {
  double loss, perplexity;
  int64_t samples, tokens, targets;
} ist_loss_result;
IST_API ist_status ist_eval_loss(ist_model *m, const ist_eval_options *o, ist_loss_result *r,
                                 ist_error *err);

/* Greedy generation from every record's prompt, compared with its last
 * assistant message, white space at both ends aside. When the answer is a JSON
 * object, fields are compared one by one as well. */
typedef struct ist_exact_example {
  int64_t index;
  const char *prompt, *expected, *got; /* borrowed during the call */
  bool exact;
  int64_t fields, fields_right;
} ist_exact_example;
typedef void (*ist_exact_fn)(void *user, const ist_exact_example *example);
typedef struct ist_exact_result {
  int64_t samples, exact, fields, fields_right;
  double seconds;
  int64_t new_tokens;
} ist_exact_result;
IST_API ist_status ist_eval_exact(ist_model *m, const ist_eval_options *o, ist_exact_fn each,
                                  void *user, ist_exact_result *r, ist_error *err);

/* Measured importance: one layer's adapters suppressed at a time, the paired
 * difference of each sample's loss, with a 95 % interval. */
typedef struct ist_layer_importance {
  double delta, low, high;
} ist_layer_importance;
/* `out` has room for L entries. factor: what the layer's adapters are multiplied by. */
IST_API ist_status ist_eval_layers(ist_model *m, const ist_eval_options *o, double factor,
                                   ist_layer_importance *out, ist_error *err);

typedef struct ist_generate_options {
  size_t size;
  int64_t max_new;
  double temperature; /* 0: greedy */
  int64_t top_k;      /* 0: off */
  double top_p;       /* 1: off; of what top_k leaves */
  uint64_t seed;
  bool raw;                  /* the prompt as it is; else through the template */
  const char *template_name; /* auto: the adapter's, else the model's */
  const char *system;        /* system message or NULL */
  /* Inputs of the products of one token (and of a prompt of up to 16): float (in the
   * model's compute type), int8 (rounded to bytes, a scale for every 32); auto: int8
   * unless the model was opened with IST_COMPUTE_F32. */
  const char *inputs;
} ist_generate_options;
IST_API void ist_generate_options_init(ist_generate_options *o);
/* Called with each piece of text (whole UTF-8 characters); false stops. */
typedef bool (*ist_text_fn)(void *user, const char *piece, size_t len);
typedef struct ist_generate_result {
  int64_t prompt_tokens, new_tokens;
  int64_t kept_tokens; /* of a conversation's prompt: those that were not computed again; */
  int64_t left_out;    /* its oldest exchanges that no longer fit, left out from now on */
  double prompt_seconds, seconds;
  bool ended; /* an end token was reached */
} ist_generate_result;
IST_API ist_status ist_generate(ist_model *m, const char *prompt, const ist_generate_options *o,
                                ist_text_fn each, void *user, ist_generate_result *r,
                                ist_error *err);

/* A conversation of up to `context` tokens, prompt and answers together (0: as many as the
 * model was made for, at most 4,096). The options' texts must stay. */
typedef struct ist_chat ist_chat;
IST_API ist_status ist_chat_open(ist_chat **out, ist_model *m, const ist_generate_options *o,
                                 int64_t context, ist_error *err);
/* The user's next message; `each` gets the answer as it comes and stops it by false (what
 * was written stays). Only what the conversation has in common with the turn before is not
 * computed again. After an error the conversation is as it was. */
IST_API ist_status ist_chat_say(ist_chat *c, const char *text, ist_text_fn each, void *user,
                                ist_generate_result *r, ist_error *err);
IST_API void ist_chat_close(ist_chat *c);

/* ---- Selectors alone ----------------------------------------------------------
 * For another training loop: L, a seed and losses in; sets of layers out. */

typedef struct ist_selector ist_selector;
/* options->selector is "ist", "random", "all", "fixed:0,3" or "scores:FILE"; the constants come
 * from the selection fields and seed of `options` (NULL: the defaults). */
IST_API ist_status ist_selector_open(ist_selector **out, int64_t L,
                                     const ist_train_options *options, ist_error *err);
IST_API void ist_selector_free(ist_selector *s);
/* True when a probe is due before the draw of step t (finished optimizer steps). */
IST_API bool ist_selector_wants_probe(const ist_selector *s, int64_t t);
/* The candidate sets to try: returns their number n <= 8; factor (n, L): what
 * each layer's adapters are multiplied by while loss k is measured. */
IST_API int64_t ist_selector_propose(ist_selector *s, int64_t t, float *factor);
/* The n mean losses of the candidates just proposed, for the same t and n (anything else is a
 * defect of the caller, and asserted); updates the scores, unless a loss is not finite. Does
 * nothing where none were proposed. */
IST_API void ist_selector_observe(ist_selector *s, int64_t t, const double *loss, int64_t n);
/* active (L) := 1 for the layers that train in step t, else 0; returns their number, which is 0
 * where `fixed` names only layers that depth_budget leaves out of this step. */
IST_API int64_t ist_selector_draw(ist_selector *s, int64_t t, uint8_t *active);
/* sigmoid(-score) in (0, 1): rises with importance. */
IST_API double ist_selector_importance(const ist_selector *s, int64_t layer);

/* ---- Files for benchmarks --------------------------------------------------------- */

typedef struct ist_shape {
  int64_t L, D, F, H, K, E, V, context;
  bool tied;
} ist_shape;
/* "smollm2-135m", "llama-1b", "llama-7b", "llama-13b"; false when unknown. */
IST_API bool ist_shape_find(const char *name, ist_shape *out);
/* Writes a GGUF Llama model of that shape with random weights of a type
 * ("Q4_0", "F32", ...) and a byte-level tokenizer, a tensor at a time. */
IST_API ist_status ist_make_model(const char *path, const ist_shape *shape, const char *type,
                                  uint64_t seed, ist_error *err);

#ifdef __cplusplus
}
#endif
#endif
