"""safe-compose: `docker compose down -v` with a seat belt and an undo.

The map of the house. A command travels as data through small pure steps; effects stand at the edges:

    argv --grammar--> Invocation --engine--> Observed --threat--> volumes --policy--> verdicts --plan--> Plan
         --prompts--> confirmed --methods--> artifacts --verify--> evidence --catalogue--> backup --> docker

- `shim`       the `docker` you type: harmless commands are exec'd at once; imports nothing heavy; for the programs on PATH
  `harmless` does so before even `os` is imported (`harmless.c` before Python starts, with the words of `harmless.words`), and
  what a look at one container can tell `nearby` asks the engine itself
- `errors`     what can go wrong, one exit code each
- pure rooms:  `grammar` (docker's command line as tables), `observed` (what the engine said), `threat` (which volumes a
  command may delete), `policy` (which of them matter), `plan` (what will be done, and how it reads), `artifacts` (what a
  backup is made of), `retention` (which backups stay, and why), `destination` (where copies of them may go), `elsewhere`
  (where a volume goes that does not go home), `consumers/` (who holds a database's password), `dsn`, `dotenv` and `composefile`
  (where it stands in a text, and how another is put there),
  `predecessors` (volumes that look like what a project's own once were)
- ground that rooms stand on: `durable` (files that survive a power cut), `process` (who runs, and whether it still lives),
  `record` (named tuples that cost no import)
- effect rooms, one outside thing each: `config` (TOML files), `engine/` (docker), `methods/` (one per kind of data),
  `catalogue/` (the store of backups), `journal` (what was done), `approvals` (what a person let through), `edits` (the
  project's own files, changed and put back), `podman` (whether docker is really that), `offsite/` (a folder, an SFTP server, a
  bucket of S3), `timetable` (what is known of schedules), `timer` (systemd, cron), `webhook` (a web
  address), `prompts` (the terminal)
- roads, the only modules that join rooms: `guard` (a guarded command), `measure` (what its card fills in), `hold` (keeps the
  anonymous volumes of --rm containers from going with them), `lock` (has docker itself refuse a deletion), `backup` (the story
  of one backup: `halted` are the containers that stop for it, and come back; `proof` reads it back and tries it),
  `volume_trash` (content moved aside instead of copied), `copies` (a backup elsewhere), `recover` (what a run that was killed
  left half), `restore` (the way back, of which `targets` is the plan, `putting_back` the act, and `services` starts what ran),
  `swap` (that of one database, into a server that lives), `piece` (that of one file), `rotate/` (a database's password,
  changed everywhere at once), `upkeep` (backups forgotten, and read again), `schedule` (all of that each day, by itself),
  `setup` (what a project's files should say), `consent` (a refusal, and a person's consent to it), `hook` (a coding agent's
  line, judged before it runs by what `shell_line` reads in it and `doors` asks of the grammar), `audit/` (the same for the
  files of a project), `doctor` (what is not in order), `cli/` (our own verbs, a module for each chapter); `world` is what they
  hold in their hands
- `ways/`      how we come to stand before docker: functions for shells, programs on PATH, the compose plugin
"""

__version__ = "0.1.0"
