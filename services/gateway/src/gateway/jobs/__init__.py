"""Jobs: what Ray carries out for the ledger. Files in <home>/jobs/<job>/ are all that the two sides share.

job.json        gateway → job    what to do: one task per entry
cancel-<entry>  gateway → job    stop this one
closed          gateway → job    nobody listens any more: end
journal.jsonl   job → gateway    what became of it, a line at a time
log             job → gateway    all that the work printed
"""
