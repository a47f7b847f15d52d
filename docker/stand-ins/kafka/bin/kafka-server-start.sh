#!/usr/bin/env bash
# Becomes the broker of a server.properties. Heap and collector are the distribution's defaults.
set -euo pipefail
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G}
export KAFKA_LOG4J_OPTS=${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml}
collector='-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true'
archive=/opt/kafka/kafka.jsa
export KAFKA_JVM_PERFORMANCE_OPTS="${KAFKA_JVM_PERFORMANCE_OPTS:-$collector}"
[ ! -e "$archive" ] || KAFKA_JVM_PERFORMANCE_OPTS+=" -XX:SharedArchiveFile=$archive"
exec /opt/kafka/bin/kafka-run-class.sh kafka.Kafka "$@"
