#!/usr/bin/env bash
# Runs a class of Kafka with the environment that the distribution's script of this name knows.
set -euo pipefail
kafka=/opt/kafka

# One fixed order: an archive of classes holds for the class path that it was made with.
class_path=$(LC_ALL=C printf '%s:' "$kafka"/libs/*.jar)

read -ra options <<<"${KAFKA_HEAP_OPTS:--Xmx256M} ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseSerialGC -XX:TieredStopAtLevel=1} \
${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=$kafka/config/tools-log4j2.yaml} ${KAFKA_JMX_OPTS:-} ${KAFKA_OPTS:-}"

exec java "${options[@]}" -Dkafka.logs.dir="${LOG_DIR:-$kafka/logs}" -cp "${class_path%:}${CLASSPATH:+:$CLASSPATH}" "$@"
