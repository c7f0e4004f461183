cd /work/wt/study9
export PYTHONPATH=src
for n in OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS; do export $n=1; done
exec nice -n 15 taskset -c $1 /work/main/.venv/bin/python benchmarks/stable.py "${@:2}"
