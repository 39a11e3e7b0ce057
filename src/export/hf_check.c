/* A config.json is read as the reader of folders would, and must describe the model that it was
 * made of: what a family of transformers cannot say is found before anything is written. */
#include <math.h>

#include "base/mem.h"
#include "export/hf_folder.h"

/* The two descriptions, and what to say where they part. */
typedef struct pair {
  const ist_model *m;
  const ist_model_config *file, *folder;
  ist_error *err;
} pair;

static ist_status differ(const pair *p, const char *what, double file, double folder) {
  return ist_fail(p->err, IST_ERR_UNSUPPORTED,
                  "%s: %s: found %g; config.json of a \"%s\" cannot say so, and stands for %g",
                  p->m->path, what, file, p->m->config.family->hf, folder);
}

/* Numbers of a GGUF are f32, those of config.json decimal. */
static bool close_to(double a, double b) {
  return fabs(a - b) <= 1e-5 * fabs(a);
}

static ist_status compare_sizes(const pair *p, bool tied) {
  const ist_model_config *a = p->file, *b = p->folder;
  const struct {
    const char *what;
    int64_t file, folder;
  } sizes[] = {
      {"layers", a->L, b->L},
      {"width", a->D, b->D},
      {"width of the MLP", ist_model_dense_layers(a) ? a->F : 0,
       ist_model_dense_layers(b) ? b->F : 0},
      {"heads", a->H, b->H},
      {"key/value heads", a->K, b->K},
      {"size of a head", a->E, b->E},
      {"vocabulary", a->V, b->V},
      {"context length", a->positions ? 0 : a->context, b->positions ? 0 : b->context},
      {"learned positions", a->positions, b->positions},
      {"row of the first position", a->position_offset, b->position_offset},
      {"order of the block's parts", a->block, b->block},
      {"norms of q and k", a->qk_norm, b->qk_norm},
      {"rotated part of a head", a->rope_dim, b->rope_dim},
      {"activation", a->act, b->act},
      {"gated MLP", a->gated, b->gated},
      {"experts", a->experts, b->experts},
      {"experts of a token", a->experts_used, b->experts_used},
      {"width of an expert", a->expert_F, b->expert_F},
      {"width of the shared expert", a->shared_F, b->shared_F},
      {"renormalised experts", a->experts && a->renormalise, b->experts && b->renormalise},
      {"norm of the embedding", a->embed_norm, b->embed_norm},
      {"slopes of positions", a->alibi != NULL, b->alibi != NULL},
      {"shared embedding and head", tied, b->tied},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].file != sizes[i].folder)
      return differ(p, sizes[i].what, (double)sizes[i].file, (double)sizes[i].folder);
  return IST_OK;
}

static ist_status compare_numbers(const pair *p) {
  const ist_model_config *a = p->file, *b = p->folder;
  const struct {
    const char *what;
    double file, folder;
  } numbers[] = {
      {"epsilon of norms", a->norm_eps, b->norm_eps},
      {"scale of scores", a->attn_scale, b->attn_scale},
      {"cap of scores", a->attn_softcap, b->attn_softcap},
      {"cap of logits", a->final_softcap, b->final_softcap},
      {"scale of the embedding", a->embed_scale, b->embed_scale},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (!close_to(numbers[i].file, numbers[i].folder))
      return differ(p, numbers[i].what, numbers[i].file, numbers[i].folder);
  return IST_OK;
}

static ist_status compare_angles(const pair *p, const float *file, const float *folder) {
  if (!file != !folder) return differ(p, "second table of angles", !!file, !!folder);
  for (int64_t j = 0; file && j < p->file->rope_dim / 2; j++)
    if (!close_to((double)file[j], (double)folder[j]))
      return differ(p, "angle of rotation", (double)file[j], (double)folder[j]);
  return IST_OK;
}

static ist_status compare_rope(const pair *p, int i) {
  const ist_rope *a = &p->file->rope[i], *b = &p->folder->rope[i];
  IST_TRY(compare_angles(p, a->freq, b->freq));
  IST_TRY(compare_angles(p, a->freq_long, b->freq_long));
  if (a->freq && !close_to(a->mscale, b->mscale))
    return differ(p, "factor of rotation", a->mscale, b->mscale);
  if (a->freq_long && a->original != b->original)
    return differ(p, "original context length", (double)a->original, (double)b->original);
  return IST_OK;
}

static ist_status compare_layers(const pair *p) {
  for (int64_t l = 0; l < p->file->L; l++) {
    const ist_layer_config a = ist_model_layer(p->file, l), b = ist_model_layer(p->folder, l);
    if (a.window != b.window) return differ(p, "window", (double)a.window, (double)b.window);
    if (a.rope != b.rope) return differ(p, "table of angles", a.rope, b.rope);
    if (a.dense != b.dense) return differ(p, "layer without experts", a.dense, b.dense);
  }
  return IST_OK;
}

static ist_status compare(const pair *p, bool tied) {
  IST_TRY(compare_sizes(p, tied));
  IST_TRY(compare_numbers(p));
  for (int i = 0; i < 2; i++) IST_TRY(compare_rope(p, i));
  return compare_layers(p);
}

ist_status ist_hf_check(const ist_model *m, json_t *config, const ist_st_item *items, int64_t n,
                        ist_error *err) {
  ist_source s;
  ist_model_config folder;
  IST_TRY(ist_source_draft(&s, config, items, n, err));
  ist_status status = ist_model_config_read(&folder, &s, err);
  if (status == IST_OK) {
    const pair p = {m, &m->config, &folder, err};
    status = compare(&p, json_is_true(json_object_get(config, "tie_word_embeddings")));
    ist_model_config_free(&folder);
  }
  ist_source_close(&s);
  return status;
}
