# The commands of the README. Each installs or names what it lacks.
#
#   make demo     kills services on purpose and proves that nothing was lost
#   make floor    measures both services against a bare client, on Apache Kafka
#   make bench    measures them against the limit of the machine and against what others do, in turns: PART=publisher,
#                 ROUNDS=3 ROWS=200000 CLAIMS=1000000 BACKLOG=1000000 ONLY=name; PART=soak MINUTES=60;
#                 BEFORE=folder has the services as they were before a change, which are measured in turns;
#                 SET="publisher.RELAY__IN_FLIGHT_MAX=8000 postgres.shared_buffers=6GB ..." gives settings;
#                 GUARD=1 is CI's short run, which fails where a measure is out of its bounds
#   make chaos    breaks everything under load: FAULTS=50 NODES=1|3 SEED=n ONLY=kind RECORD=1, or OUTAGE=600 (seconds)
#   make test     every test but Compose's, on the stack that STACK names
#   make hostile  a million records that nobody should write (RECORDS=n), by the triage service, and a hundred thousand
#                 such outbox rows (ROWS=n), by the publisher, on Apache Kafka
#   make simulate SEEDS=n   thousands of schedules of the real loops; SEED=s runs one again, step by step
#   make mutants  changes that would each break a guarantee, and the test that finds each (ONLY=part, FAST=1)
#   make check    formatting, lints, documentation, and the tests that need no stack
#   make images       our container images; images-full compiles them inside, wherever it runs
#   make up       everything in containers, with a stream and, where they can be had, Prometheus and Grafana
#   make down     ends that; VOLUMES=1 removes the data, too
#   make observe-check   alerts, dashboard and collector configuration, without containers
#   make compose-test    the same, up to down, with a rolling restart under load, judged
#
# STACK=auto|env|embedded|kafka|containers; auto takes the best that is there.

STACK ?= auto
export STACK
export PATH := $(HOME)/.cargo/bin:$(PATH)

# What starts containers is compiled where they are asked for: it changes the features of what all else stands on.
containers := --features system-tests/containers
if_containers := $(if $(filter containers,$(STACK)),$(containers))

.PHONY: demo floor bench chaos test hostile simulate mutants check images images-full up down observe-check compose-test tools postgres kafka

demo: tools postgres $(if $(filter kafka,$(STACK)),kafka)
	cargo build --release
	cargo run --release --quiet --package demo $(if_containers)

floor: tools postgres kafka
	cargo build --release
	STACK=$(if $(filter env,$(STACK)),env,kafka) cargo run --release --quiet --package demo -- --timed

# Rates of a mock cluster say nothing, so it wants Kafka.
bench: tools postgres kafka
	cargo build --release
	STACK=$(if $(filter env containers,$(STACK)),$(STACK),kafka) cargo run --release --quiet --package bench $(if_containers) -- \
	  $(if $(PART),--part $(PART)) --rounds $(or $(ROUNDS),3) --rows $(or $(ROWS),200000) $(CLAIMS:%=--claims %) $(BACKLOG:%=--backlog %) \
	  $(MINUTES:%=--minutes %) \
	  $(if $(ONLY),--only "$(ONLY)") \
	  $(if $(BEFORE),--before $(BEFORE)) $(if $(GUARD),--guard) $(SET:%=--set %)

# Needs servers that can be killed: with STACK=auto it fetches Kafka.
chaos: tools postgres $(if $(filter auto kafka,$(STACK)),kafka)
	cargo build --release
	cargo run --release --quiet --package chaos $(if_containers) -- $(if $(OUTAGE),--outage $(OUTAGE),--faults $(or $(FAULTS),50)) \
		--nodes $(or $(NODES),1) $(if $(SEED),--seed $(SEED)) $(ONLY:%=--only %) $(if $(RECORD),--record)

# The services are built first: the scenarios run the real binaries. Scenarios mostly wait, so more of them
# run at a time than small machines have cores, and fewer than large ones have: each may start servers. A container
# takes longer to start than a process: fewer at a time.
test: tools postgres $(if $(filter auto kafka,$(STACK)),kafka) $(if $(filter containers,$(STACK)),images)
	cargo build --release
	cargo test --release --workspace --exclude compose --exclude bench $(if_containers) $(if $(if_containers),--exclude simulation) \
	    -- --test-threads=$(if $(if_containers),4,6)

hostile: tools postgres kafka
	cargo build --release
	STACK=$(if $(filter env containers,$(STACK)),$(STACK),kafka) HOSTILE_RECORDS=$(or $(RECORDS),1000000) \
	    HOSTILE_ROWS=$(or $(ROWS),100000) \
	    cargo test --release --package system-tests $(if_containers) --test scenarios -- --nocapture hostile

# FROM=s names the first seed, else one is drawn and printed. SHRUNK=1 shows what is left of a failing schedule,
# WITHOUT=rule what becomes of the promise without a rule.
simulate: tools
	cargo run --release --quiet --package simulation -- \
	  $(if $(SEED),--seed $(SEED) $(if $(SHRUNK),--shrunk),--seeds $(or $(SEEDS),1000) $(if $(FROM),--from $(FROM))) \
	  $(if $(WITHOUT),--without $(WITHOUT))

# ONLY=part takes those whose name holds it, FAST=1 those whose tests start none of our services.
mutants: tools postgres $(if $(FAST),,kafka)
	STACK=$(if $(FAST),embedded,kafka) cargo run --release --quiet --package mutants -- \
	  $(if $(ONLY),--only $(ONLY)) $(if $(FAST),--fast)

check: tools
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets $(containers) -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --release --workspace --no-deps $(containers)
	cargo test --release
	cargo test --release --package simulation

images:
	@.ci/stand-ins debian
	@docker/build-images

images-full:
	@.ci/stand-ins debian
	@docker/build-images --full

up:
	@docker/up

# Profiles are named, or Compose would leave their containers.
down:
	@COMPOSE_PROFILES=load,observe,tools docker/compose down --remove-orphans $(if $(VOLUMES),--volumes)

observe-check:
	@docker/observe/check

compose-test: tools images
	STACK=containers cargo test --release --package compose -- --nocapture

tools:
	@.ci/install build

postgres:
ifeq ($(filter env containers,$(STACK)),)
	@.ci/install postgres
endif

# With STACK=auto a machine that cannot fetch Kafka goes on with the mock cluster and says what it skips.
kafka:
ifeq ($(STACK),kafka)
	@.ci/install kafka
else ifeq ($(CLAIMFIRST__KAFKA__BROKERS),)
	@.ci/install kafka || echo "going on without Apache Kafka"
endif
