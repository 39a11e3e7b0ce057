/* Data files: four characters, then the file. The first says which kind it is (j JSON lines or an
 * array, c CSV, t text; each may be packed); the others are digits: template, tokenizer, and what
 * the loss is on. */
#include <stdio.h>
#include <stdlib.h>

#include "data/doctor.h"
#include "data/reader.h"
#include "fuzz.h"

enum { CHARACTERS = 4, VOCABULARIES = 3, CHATS = 3, MAX_TOKENS = 512 };

/* ---- Tokenizers: every vocabulary with every chat template ---- */

/* BOS before every text and EOS behind it. */
#define AROUND                                                                                  \
  "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"  \
  "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{"     \
  "\"id\":\"</s>\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"     \
  "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{\"</s>\":{\"id\":\"</s>\"," \
  "\"ids\":[300],\"tokens\":[\"</s>\"]},\"<s>\":{\"id\":\"<s>\",\"ids\":[301],\"tokens\":["     \
  "\"<s>\"]}}}"

#define FALLBACK                                                               \
  "\"post_processor\":null,\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{" \
  "\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}"

/* What a text has that is not in the vocabulary becomes one token, is lost (all that the paper's
 * prompt consists of, so that there may be no token at all), or becomes bytes. */
static void write_vocabulary(int kind) {
  static const char *const head[VOCABULARIES] = {
      "\"merges\":[\"a b\"],\"unk_token\":\"u\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"u\":3",
      "\"merges\":[\"z j\"],\"vocab\":{\"z\":0,\"j\":1,\"zj\":2",
      "\"merges\":[\"a b\"],\"byte_fallback\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2"};
  static const char *const tail[VOCABULARIES] = {
      AROUND ",\"decoder\":null", "\"post_processor\":null,\"decoder\":null", FALLBACK};
  static const char *const special[] = {"</s>", "<s>", "<|im_start|>", "<|im_end|>"};
  ist_buf b = {0};
  ist_buf_printf(&b, "{\"model\":{\"type\":\"BPE\",%s", head[kind]);
  for (int i = 0; kind == 2 && i < 256; i++) ist_buf_printf(&b, ",\"<0x%02X>\":%d", i, 4 + i);
  ist_buf_str(&b, "}},\"added_tokens\":[");
  for (int i = 0; i < 4; i++)
    ist_buf_printf(&b,
                   "%s{\"id\":%d,\"content\":\"%s\",\"special\":true,\"single_word\":false,"
                   "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}",
                   i ? "," : "", 300 + i, special[i]);
  ist_buf_printf(&b, "],\"normalizer\":null,\"pre_tokenizer\":null,%s}", tail[kind]);
  fuzz_file("tokenizer.json", b.p, b.len);
  ist_buf_free(&b);
}

/* Replies are found by rendering parts of the conversation; */
static const char by_parts[] =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}"
    "\\n{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}";
/* they are shown otherwise once it goes on, and opened otherwise; */
static const char changing[] =
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>{{ m.content | trim if "
    "loop.last else m.content.split('b')[-1] }}</s>{% else %}{{ m.content | trim }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>c\\nc{% endif %}";
/* they are marked. */
static const char marked[] =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}c{% endfor %}";

static void write_chat(int kind) {
  static const char *const chat[CHATS] = {by_parts, changing, marked};
  ist_buf b = {0};
  ist_buf_printf(&b, "{\"eos_token\":\"%s\",\"bos_token\":\"<s>\",\"chat_template\":\"%s\"}",
                 kind ? "</s>" : "<|im_end|>", chat[kind]);
  fuzz_file("tokenizer_config.json", b.p, b.len);
  ist_buf_free(&b);
}

static const ist_tokenizer *tokenizer(int which) {
  static ist_tokenizer *made[VOCABULARIES * CHATS];
  ist_tokenizer **t = &made[which];
  if (*t) return *t;
  write_vocabulary(which % VOCABULARIES);
  write_chat(which / VOCABULARIES);
  ist_error err = {0};
  if (ist_tokenizer_open_json(t, fuzz_folder(), &err) != IST_OK || !ist_tokenizer_chat(*t)) {
    fprintf(stderr, "%s\n", err.message);
    abort();
  }
  return *t;
}

/* ---- What is done with a file ---- */

/* Records one at a time, behind bad ones as well; a prompt for each. */
static void read_records(const char *path, const ist_tokenizer *tok, ist_template tmpl) {
  ist_error err = {0};
  ist_reader *r;
  ist_status status = ist_reader_open(&r, path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return;
  bool more = true;
  for (int64_t n = 0; more && n < IST_DOCTOR_REFUSED; n++) { /* packed files hold any number */
    ist_record record = {0};
    status = ist_reader_next(r, &record, &more, &err);
    fuzz_check(status, &err);
    if (status != IST_OK || !more) continue;
    ist_ids prompt = {0};
    const char *answer;
    status = ist_prompt_build(&prompt, &record, tok, tmpl, 0, &answer, &err);
    fuzz_check(status, &err);
    ist_ids_free(&prompt);
    ist_record_free(&record);
  }
  ist_reader_close(r);
}

static void check_sample(const ist_sample *s, const ist_tokenizer *tok) {
  int32_t targets = 0;
  if (s->n < 1 || s->n > MAX_TOKENS || s->mask[0] || !s->mask[s->n - 1]) abort();
  for (int32_t i = 0; i < s->n; i++) {
    if (s->ids[i] < 0 || s->ids[i] >= ist_tokenizer_size(tok) || s->mask[i] > 1) abort();
    targets += s->mask[i];
  }
  if (targets != s->n_target) abort();
}

/* What the doctor says of a file that can be learned is what is learned. */
static void compare(const ist_doctor *doctor, const ist_dataset *d) {
  if (doctor->stopped || doctor->failed.n || doctor->records != d->n + d->n_dropped ||
      doctor->dropped != d->n_dropped || doctor->cut != d->n_cut || doctor->tokens != d->n_tokens ||
      doctor->targets != d->n_target || doctor->longest != d->max_len)
    abort();
}

static void learn(const char *path, const ist_tokenizer *tok, const ist_data_options *o) {
  ist_error err = {0};
  ist_dataset d = {0};
  ist_status learned = ist_dataset_append(&d, path, tok, o, &err);
  if (learned == IST_OK) learned = ist_dataset_ready(&d, &err);
  fuzz_check(learned, &err);
  for (int64_t i = 0; learned == IST_OK && i < d.n; i++) check_sample(&d.p[i], tok);
  ist_doctor doctor;
  ist_status read = ist_doctor_read(&doctor, path, tok, o, 2, &err);
  fuzz_check(read, &err);
  if (learned == IST_OK) {
    if (read != IST_OK) abort();
    compare(&doctor, &d);
  } else if (read == IST_OK && !doctor.stopped && !doctor.failed.n && doctor.tokens) {
    abort(); /* it found nothing that training trips over */
  }
  ist_doctor_free(&doctor);
  ist_dataset_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const ist_template template[] = {IST_TEMPLATE_NONE, IST_TEMPLATE_PAPER,
                                          IST_TEMPLATE_CHATML, IST_TEMPLATE_ALPACA,
                                          IST_TEMPLATE_MODEL};
  if (size < CHARACTERS) return -1;
  const char *name = data[0] == 'c' ? "data.csv" : data[0] == 't' ? "data.txt" : "data.jsonl";
  const ist_tokenizer *tok = tokenizer((uint8_t)(data[2] - '0') % (VOCABULARIES * CHATS));
  const ist_data_options o = {.tmpl = template[(uint8_t)(data[1] - '0') % 5],
                              .loss_on = (ist_loss_on)((uint8_t)(data[3] - '0') % 3),
                              .max_tokens = MAX_TOKENS};
  char path[256];
  snprintf(path, sizeof path, "%s", fuzz_file(name, data + CHARACTERS, size - CHARACTERS));
  read_records(path, tok, o.tmpl);
  learn(path, tok, &o);
  return 0;
}
