# The commands of the project. They need Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

# One thread per process: the work is parallel over processes, and threads of two processes would fight for the cores.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PYTHONHASHSEED := 0

.PHONY: help reproduce quick test test-slow audit bench book pdf slides notebooks student kit dist

help:
	@echo "make reproduce   train the models of the quick profile, build the book, print the table"
	@echo "make test        types, style, unit tests, every notebook, the book and its pages"
	@echo "make test-slow   thousands of random inputs; all notebooks with other parameters; nbgrader; the workshop kit in an"
	@echo "                 empty environment; the workflow through a Slurm of its own (Debian: slurmctld slurmd slurm-client munge)"
	@echo "make audit       known faults of the pinned packages"
	@echo "make bench       how fast the library is on this machine, as ratios: a quarter of an hour, into results/speed.csv"
	@echo "make book        build the book into _build/html"
	@echo "make pdf         the whole book as one PDF, _build/dimlib.pdf, which Chromium prints (Debian: chromium)"
	@echo "make slides      build the slides of the 90-minute lecture into _build/slides"
	@echo "make notebooks   run the notebooks again and store their outputs"
	@echo "make student     the notebooks without solutions into _build/student, with them into _build/lecturer"
	@echo "make kit         one zip for a workshop, _build/dimlib-kit.zip: notebooks, tables, dimlib, how to start"
	@echo "make dist        build the package, check it, and run the README's ten lines from it in an empty environment"
	@echo
	@echo "Each installs what it needs into .venv first. Another Python: make test PYTHON=python3.12"
	@echo "Tests run in two processes, or in more: make test JOBS=8"

# The models and the book at the same time: the book needs the committed results only.
reproduce: .venv/.installed
	$(MAKE) --jobs=2 quick book
	@echo
	@$(BIN)/python workflow/summarise.py runs/quick/summary.csv runs/quick/spheres.csv
	@echo "The book: $(CURDIR)/_build/html/index.html"

quick: .venv/.installed
	$(BIN)/snakemake -s workflow/Snakefile --profile workflow/profiles/quick

test: .venv/.installed
	$(BIN)/python -m mypy
	$(BIN)/python -m ruff check
	$(BIN)/python -m pytest tests --ignore=tests/site -rs -n $(JOBS) --dist worksteal
	$(BIN)/python -c "import matplotlib.pyplot"  # builds the font cache, which would print into a notebook
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 -rs -n $(JOBS) --dist loadfile --no-loadscope-reorder notebooks
	$(MAKE) book
	$(BIN)/python -m pytest tests/site -rs -n $(JOBS)

test-slow: .venv/.installed
	$(BIN)/python -m pip install -e ".[teach]" -c constraints.txt
	DIMLIB_SLURM=1 DIMLIB_KIT=1 DIMLIB_LONG=1 $(BIN)/python -m pytest tests/slow -rs
	DIMLIB_EXAMPLES=2000 $(BIN)/python -m pytest tests/test_any_input.py -n $(JOBS)
	DIMLIB_LONG=1 $(BIN)/python -m pytest tests/test_notebooks_papermill.py -n $(JOBS)

# Known faults of the pinned packages, from the package index; pip-audit has an environment of its own.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --disable-pip --no-deps

bench: .venv/.installed
	$(BIN)/python benchmarks/speed.py results/speed.csv

# From scratch each time: Sphinx repeats no warning for a page it has already built.
book: .venv/.installed
	rm -rf _build
	$(BIN)/jupyter-book build . -n -W --keep-going

pdf: book
	$(BIN)/python workflow/pdf.py _build/dimlib.pdf

slides: .venv/.installed
	rm -rf _build/slides
	$(BIN)/python -m sphinx -b revealjs -n -W --keep-going book/slides _build/slides

notebooks: .venv/.installed
	for notebook in notebooks/*.ipynb; do \
		$(BIN)/python workflow/run_notebook.py $$notebook $$notebook || exit 1; \
	done

student: .venv/.installed
	$(BIN)/python workflow/student.py _build

kit: .venv/.installed
	$(BIN)/python workflow/kit.py _build/dimlib-kit.zip

# -P: dimlib comes from the package that was built, and not from this folder.
dist: .venv/.installed
	rm -rf dist build
	$(BIN)/python -m pip install build twine
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	for package in dist/*; do \
		$(PYTHON) -m venv --clear build/empty && \
		build/empty/bin/pip install $$package pytest hypothesis && \
		build/empty/bin/python -P -m pytest tests/test_readme.py || exit 1; \
	done

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e ".[book,test,workflow]" -c constraints.txt
	touch $@
