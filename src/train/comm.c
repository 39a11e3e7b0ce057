#include "train/comm.h"

static void keep_count(ist_comm *c, int64_t *targets) {
  (void)c, (void)targets;
}
static void keep_loss(ist_comm *c, double *sum, int64_t *count) {
  (void)c, (void)sum, (void)count;
}
static void keep_gradients(ist_comm *c, void *grads, ist_dtype type, int64_t n) {
  (void)c, (void)grads, (void)type, (void)n;
}
static void keep_decision(ist_comm *c, bool *finite) {
  (void)c, (void)finite;
}

void ist_comm_single(ist_comm *c) {
  *c = (ist_comm){
      .world = 1,
      .token_count = keep_count,
      .probe_loss = keep_loss,
      .gradients = keep_gradients,
      .decide = keep_decision,
  };
}
