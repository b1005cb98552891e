-- Puts a leased job back: in its old place, or aside until `run_at`. Frees its slot in the same step.
-- Guarantees that band (before ageing) and seq travel with the job. Only with the lease's own token.
local now = clock()
local holder = get_holder(args.id)
if not holder or holder.token ~= args.token then return 0 end
local job = get_job(args.id)
unlease(args.id, job)
job.epoch, job.run_at = args.epoch, args.run_at
wait(args.id, job, now)
refresh(job.user)
wake()
return 1
