/* --targets, --exclude, --layers-to-transform, --rank-pattern and --alpha-pattern: which modules
 * of which layers they reach; the way back to words; what they refuse. PEFT's own answers to the
 * rules are in tests/format/test_peft_match.c. */
#include "fixture.h"

#include "model/targets.h"
#include "train/options.h"

#define L_TINY 4

static ist_model_config *config;
static tiny model;

static int setup(void **state) {
  (void)state;
  tiny_open_model(&model, TINY, "llama_tiny.gguf");
  config = &model.config;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  tiny_close_model(&model);
  return 0;
}

static ist_status find(const ist_train_options *o, ist_adapters *ad, ist_error *err) {
  ist_linear_sizes sizes;
  ist_adapter_config c;
  ist_model_linear_sizes(config, &sizes);
  ist_status s = ist_options_adapter(o, config, &c, err);
  if (s != IST_OK) return s;
  s = ist_adapters_layout(ad, &c, &sizes, config->L, IST_F32, err);
  if (s != IST_OK) ist_targets_free(&c);
  return s;
}

static ist_train_options options(const char *targets) {
  ist_train_options o;
  ist_train_options_init(&o);
  o.targets = targets;
  o.rank = 8;
  o.alpha = 16;
  return o;
}

/* Ranks by layer, a digit a module in the order q k v o gate up down, 0 where there is none. */
static void expect(const ist_train_options *o, const char *const want[L_TINY]) {
  ist_adapters ad;
  ist_error err = {0};
  MUST(find(o, &ad, &err));
  for (int64_t l = 0; l < L_TINY; l++) {
    char got[8] = "";
    for (int m = 0; m <= IST_MOD_DOWN; m++)
      got[m] = (char)('0' + ist_adapter_rank(&ad, l, (ist_module)m));
    assert_string_equal(got, want[l]);
  }
  ist_targets_free(&ad.config);
}
#define EXPECT(o, ...) expect(&(o), (const char *const[L_TINY]){__VA_ARGS__})

static void test_words(void **state) {
  (void)state;
  ist_train_options o = options("q,V_PROJ,mlp.down_proj");
  EXPECT(o, "8080008", "8080008", "8080008", "8080008");
  o = options("all-linear");
  o.exclude = "k,gate";
  EXPECT(o, "8088088", "8088088", "8088088", "8088088");
  o = options("layers.2.self_attn.o_proj,up");
  EXPECT(o, "0000080", "0000080", "0008080", "0000080");
  o = options(".*layers\\.[13]\\.self_attn\\.(q|k)_proj");
  EXPECT(o, "0000000", "8800000", "0000000", "8800000");
  o = options("q,up");
  o.layers_to_transform = "0,2-3";
  EXPECT(o, "8000080", "0000000", "8000080", "8000080");
  o.layers_pattern = "layers";
  EXPECT(o, "8000080", "0000000", "8000080", "8000080");
  o.layers_to_transform = "0-2,1-2,0,3";
  EXPECT(o, "8000080", "8000080", "8000080", "8000080");
  o = options("q,k,down");
  o.rank_pattern = "q=2,layers.1.self_attn.k_proj=5,model\\.layers\\.[2,3]\\..*(k|down)_proj=3";
  EXPECT(o, "2800008", "2500008", "2300003", "2300003");
  o.exclude = ".*\\.0\\..*";
  EXPECT(o, "0000000", "2500008", "2300003", "2300003");
}

static void test_embedding_and_head(void **state) {
  (void)state;
  ist_adapters ad;
  ist_error err = {0};
  ist_train_options o = options("q,embed_tokens,lm_head");
  o.rank_pattern = "lm_head=2,embed=5";
  o.alpha_pattern = "model.embed_tokens=10";
  MUST(find(&o, &ad, &err));
  assert_true(ad.outer.of[IST_OUTER_EMBED].rank == 5 && ad.outer.of[IST_OUTER_EMBED].scale == 2);
  assert_true(ad.outer.of[IST_OUTER_HEAD].rank == 2 && ad.outer.of[IST_OUTER_HEAD].scale == 8);
  assert_int_equal(ad.outer.params, 7 * (config->V + config->D));
  ist_targets_free(&ad.config);
  o = options("all-linear"); /* as PEFT: neither of them */
  MUST(find(&o, &ad, &err));
  assert_int_equal(ad.outer.params, 0);
  ist_targets_free(&ad.config);
}

static void test_scales(void **state) {
  (void)state;
  ist_adapters ad;
  ist_error err = {0};
  ist_train_options o = options("q,k");
  o.rank_pattern = "layers.1.self_attn.q_proj=4";
  o.alpha_pattern = ".*\\.[01]\\..*k_proj=2.5,q=6";
  MUST(find(&o, &ad, &err));
  assert_true(ist_adapter_scale(&ad, 0, IST_MOD_Q, 0) == 0.75);
  assert_true(ist_adapter_scale(&ad, 1, IST_MOD_Q, 0) == 1.5);
  assert_true(ist_adapter_scale(&ad, 1, IST_MOD_K, 0) == 2.5 / 8);
  assert_true(ist_adapter_scale(&ad, 2, IST_MOD_K, 0) == 2);
  /* what is zero for good does not count as trainable */
  int64_t D = config->D, kv = config->K * config->E;
  assert_int_equal(ist_adapter_trainable(&ad), 4 * 8 * (D + D) + 4 * 8 * (D + kv) - 4 * (D + D));
  ist_targets_free(&ad.config);
  o.rslora = true;
  MUST(find(&o, &ad, &err));
  assert_true(ist_adapter_scale(&ad, 1, IST_MOD_Q, 0) == 3);
  ist_targets_free(&ad.config);
}

/* Words of words are the same places: what a run writes down is what a resumed one reads. */
static void test_there_and_back(void **state) {
  (void)state;
  ist_train_options cases[] = {
      options("all-linear"),
      options("q,layers.2.self_attn.o_proj"),
      options(".*layers\\.[13]\\.self_attn\\.(q|k)_proj"),
      options(".*(layers\\.0\\..*|q)_proj"),
      options("v,gate"),
      options("head,v,embed"),
  };
  cases[3].rank_pattern = "layers.2.self_attn.q_proj=3,down=2";
  cases[3].alpha_pattern = "q=1,.*0.mlp.*=0.1";
  cases[5].rank_pattern = "embed=3";
  cases[4].layers_to_transform = "1-2";
  cases[4].rslora = true;
  cases[4].method = "dora";
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ist_adapters ad, again;
    ist_error err = {0};
    ist_train_options copy;
    cases[i].train_path = "none";
    MUST(find(&cases[i], &ad, &err));
    MUST(ist_options_copy(&copy, &cases[i], &err));
    MUST(ist_options_from_adapter(&copy, &ad, config, &err));
    MUST(find(&copy, &again, &err));
    assert_string_equal(copy.method, cases[i].method);
    assert_memory_equal(&ad.layout, &again.layout, sizeof ad.layout);
    assert_memory_equal(&ad.outer, &again.outer, sizeof ad.outer);
    for (int64_t l = 0; l < L_TINY; l++) {
      for (int m = 0; m < IST_MOD_COUNT; m++) {
        const ist_adapter_place *a = &ad.config.places[l * IST_MOD_COUNT + m];
        const ist_adapter_place *b = &again.config.places[l * IST_MOD_COUNT + m];
        assert_true(a->rank == b->rank && a->alpha == b->alpha && a->scale == b->scale);
      }
    }
    ist_targets_free(&ad.config);
    ist_targets_free(&again.config);
    ist_options_free(&copy);
  }
}

static void refuses(ist_train_options o, const char *part) {
  ist_adapters ad;
  ist_error err = {0};
  if (find(&o, &ad, &err) == IST_OK) fail_msg("found something: %s", o.targets);
  if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void test_refusals(void **state) {
  (void)state;
  refuses(options("q,wo"), "target_modules: found \"wo\", which matches nothing");
  refuses(options("q_proj_"), "target_modules: found \"q_proj_\"");
  refuses(options("layers.4.self_attn.q_proj"), "matches nothing");
  refuses(options("(q|k)_proj"), "matches nothing"); /* the whole path, as PEFT */
  refuses(options("(q"), "no regular expression");
  ist_train_options o = options("q");
  o.exclude = "k";
  refuses(o, "exclude_modules: found \"k_proj\"");
  o.exclude = "q";
  refuses(o, "leave of it");
  o = options("q");
  o.rank_pattern = "k=3";
  refuses(o, "rank_pattern: found \"k_proj\"");
  o.rank_pattern = "q=2.5";
  refuses(o, "rank_pattern: found \"q=2.5\"");
  o.rank_pattern = "q=5000";
  refuses(o, "found 5000, expected 1 to 4096");
  o.rank_pattern = "q";
  refuses(o, "expected MODULE=NUMBER");
  o = options("q");
  o.alpha_pattern = "q=-1";
  refuses(o, "alpha_pattern: found \"q=-1\"");
  o = options("q");
  o.layers_to_transform = "2-4";
  refuses(o, "layers_to_transform: found \"2-4\", expected layers of 0 to 3");
  o.layers_to_transform = "1;2";
  refuses(o, "layers_to_transform: found \"1;2\"");
  o = options(".*q_proj");
  o.layers_to_transform = "1";
  refuses(o, "layers_to_transform needs target_modules as a list");
  refuses(options("lm_head"), "found nothing in a layer");
  o = options("q,embed_tokens");
  o.depth_budget = 0.5;
  refuses(o, "depth_budget: found 0.5, but an adapter on the embedding needs all layers");
  o = options("q,lm_head");
  o.method = "dora";
  refuses(o, "the output head, which can have plain LoRA only, found method dora");
  o = options("q");
  o.layers_to_transform = "1";
  o.layers_pattern = "h";
  refuses(o, "leave of it");
}

/* "gate" is that matrix of every expert; a word that is none of them is still refused. */
static void test_experts(void **state) {
  (void)state;
  ist_error err = {0};
  tiny mixture;
  tiny_open_model(&mixture, IST_GOLDEN_DIR "/families/mixtral/", "model.gguf");
  config = &mixture.config;
  ist_adapters ad;
  const ist_train_options o = options("q,gate");
  MUST(find(&o, &ad, &err));
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    bool wanted = m == IST_MOD_Q || strcmp(ist_module_name((ist_module)m), "expert_gate") == 0;
    assert_int_equal(ist_adapter_rank(&ad, 0, (ist_module)m), wanted ? 8 : 0);
  }
  ist_targets_free(&ad.config);
  refuses(options("q,side"), "found \"side\", which matches nothing");
  config = &model.config;
  tiny_close_model(&mixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_words),    cmocka_unit_test(test_embedding_and_head),
      cmocka_unit_test(test_scales),   cmocka_unit_test(test_there_and_back),
      cmocka_unit_test(test_refusals), cmocka_unit_test(test_experts),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
