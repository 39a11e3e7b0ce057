#include "model/config.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static const ist_arch *const archs[] = {&ist_arch_llama};

static ist_status unsupported_arch(ist_str found, ist_error *err) {
  ist_buf names = {0};
  for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
    ist_buf_printf(&names, "%s%s", i ? ", " : "", archs[i]->name);
  }
  ist_status status =
      ist_fail(err, IST_ERR_UNSUPPORTED, "general.architecture: found \"%.*s\", supported: %s",
               (int)found.len, found.p, names.p ? names.p : "");
  ist_buf_free(&names);
  return status;
}

static ist_status check_sizes(const ist_model_config *c, ist_error *err) {
  const struct {
    const char *name;
    int64_t value, max;
  } sizes[] = {
      {"block_count", c->L, 4096},
      {"embedding_length", c->D, 1 << 20},
      {"feed_forward_length", c->F, 1 << 22},
      {"attention.head_count", c->H, 4096},
      {"attention.head_count_kv", c->K, 4096},
      {"attention.key_length", c->E, 4096},
      {"vocab_size", c->V, 1 << 24},
      {"context_length", c->context, INT64_C(1) << 40},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (sizes[i].value < 1 || sizes[i].value > sizes[i].max) {
      return ist_fail(err, IST_ERR_FORMAT, "%s.%s: found %lld, expected 1 to %lld", c->arch,
                      sizes[i].name, (long long)sizes[i].value, (long long)sizes[i].max);
    }
  }
  if (c->H % c->K != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.attention.head_count_kv: found %lld, expected a divisor of %lld heads",
                    c->arch, (long long)c->K, (long long)c->H);
  }
  if (c->rope_dim < 0 || c->rope_dim > c->E || c->rope_dim % 2 != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.rope.dimension_count: found %lld, expected an even number up to %lld",
                    c->arch, (long long)c->rope_dim, (long long)c->E);
  }
  if (!(c->norm_eps > 0) || !(c->norm_eps < 1)) {
    return ist_fail(err, IST_ERR_FORMAT, "%s: norm epsilon: found %g, expected between 0 and 1",
                    c->arch, c->norm_eps);
  }
  return IST_OK;
}

ist_status ist_model_config_read(ist_model_config *c, const ist_gguf *g, ist_error *err) {
  memset(c, 0, sizeof *c);
  ist_str arch = {0}, name = {0};
  IST_TRY(ist_gguf_get_str(g, "general.architecture", true, &arch, err));
  IST_TRY(ist_gguf_get_str(g, "general.name", false, &name, err));
  for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
    if (strlen(archs[i]->name) != arch.len || memcmp(archs[i]->name, arch.p, arch.len) != 0)
      continue;
    memcpy(c->arch, arch.p, arch.len);
    size_t len = name.len < sizeof c->name - 1 ? name.len : sizeof c->name - 1;
    if (len) memcpy(c->name, name.p, len);
    ist_status status = archs[i]->fill(c, g, err);
    if (status == IST_OK) status = check_sizes(c, err);
    if (status != IST_OK) ist_model_config_free(c);
    return status;
  }
  return unsupported_arch(arch, err);
}

void ist_model_config_free(ist_model_config *c) {
  ist_free(c->rope_freq);
  c->rope_freq = NULL;
}

void ist_model_linear_sizes(const ist_model_config *c, ist_linear_sizes *out) {
  int64_t q = c->H * c->E, kv = c->K * c->E;
  *out = (ist_linear_sizes){
      .in = {c->D, c->D, c->D, q, c->gated ? c->D : 0, c->D, c->F},
      .out = {q, kv, kv, c->D, c->gated ? c->F : 0, c->F, c->D},
  };
}
