"""What `exporl bench --help` says."""

HELP = """usage: exporl bench SUITE.toml [options]

Makes every run of a suite, algorithms x tasks x seeds, a few at a time, and compares them. The same
command goes on where it was stopped or killed, and repeats nothing that is finished.

  exporl bench suite.toml --dry-run      check every entry; list the grid with its expected hours
  exporl bench suite.toml --jobs 2       make the runs, two at a time, each on cores of its own
  exporl bench suite.toml --ray          make them on Ray, here or on a cluster
  exporl bench suite.toml --table        tables of the finished runs, in Markdown
  exporl bench suite.toml --latex        the same for LaTeX (booktabs)
  exporl bench suite.toml --csv          every evaluation of every run, one row each
  exporl bench suite.toml --json         what the tables need, small enough to be kept
  exporl report suite.toml               tables and learning curves of all runs on one page

options:
  --jobs K          runs at a time (default: one per core)
  --dry-run         make nothing
  --table, --latex, --csv, --json   show what there is, and make nothing
  --only NAME,...   a part of the suite: algorithms, tasks and seeds, such as
                    --only expo,rlpd --only metaworld/push-v3,seed=0
  --output FILE     where the table goes (default: standard output)
  --allow WHAT      go on although the runs there are were made with something else:
                    version (of exporl, of packages or of your own code), or
                    configuration (only train.online_steps may grow); repeat for both
  --ray             every run is a Ray actor with its share (pip install 'exporl[ray]'):
  --address ADDRESS   the cluster, HOST:PORT or auto (default: this machine)
  --cpus N, --gpus X  of each run (default: 1 and 0); --jobs: as many as there is room for

a suite:
  seeds = 3                              # 0, 1, 2; or a list
  preset = "small"                       # of every algorithm that names none
  score = 0.8                            # the success rate that counts as reached
  window = 3                             # evaluations that are averaged before that
  baselines = ["rlpd", "bc"]             # default: all algorithms but the first
  options.train.online_steps = 5000      # any option of `exporl train ALGO --help`, for all runs

  [algorithms.expo]
  [algorithms.expo-no-edits]             # a name of yours ...
  algorithm = "expo"                     # ... for an algorithm with other options
  options.algo.num_edit_samples = 0
  [algorithms.rlpd]
  options.train.utd_ratio = 20
  on."metaworld/push-v3".chunk_length = 1    # on this task only
  [algorithms.bc]

  [tasks."metaworld/push-v3"]
  score = 0.9
  options.data.demo_noise = 0.4
  seconds_per_step = 0.05                # for --dry-run, until a run has been measured

Everything is checked before anything starts. Runs go to runs/bench/<name of the file>, or where
folder = "..." says. A run that fails does not end the suite: failures are listed at the end, with
exit status 1. Ctrl-C stops all runs after a checkpoint. docs/bench.md: what the numbers mean.

a search: a suite of one algorithm with these tables makes trials of it; the best configuration
becomes a preset file, <folder>/best.toml (pip install 'exporl[search]')
  [search]
  trials = 20
  [search.space]
  algo.tau = { low = 1e-3, high = 1e-2, log = true }
  train.utd_ratio = [1, 4]
"""
"""The help text; no line is wider than 100."""
