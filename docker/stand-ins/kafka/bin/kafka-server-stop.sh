#!/usr/bin/env bash
# Asks the broker of this container to shut down.
set -euo pipefail
pkill -TERM --full 'java .*kafka\.Kafka '
