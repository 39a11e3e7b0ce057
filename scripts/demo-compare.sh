#!/bin/sh
# demo-compare.sh: the demo with all layers and with random layers beside IST,
# on the same messages, the same number of tokens.
exec sh "$(dirname "$0")/demo.sh" ist all random
