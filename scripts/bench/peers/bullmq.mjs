// One run of BullMQ: submits jobs that do nothing and runs them. Arguments: jobs at once, port of Redis, jobs.
// Measures as meter.py does.
import { createRequire } from 'node:module'
import { performance } from 'node:perf_hooks'

// The packages are where this process was started, not where this file is.
const packages = createRequire(process.cwd() + '/')
const { Queue, Worker } = packages('bullmq')
const { Redis } = packages('ioredis')
const [concurrency, port, jobs] = process.argv.slice(2).map(Number)
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null }
const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: true } })
await queue.waitUntilReady()
const client = new Redis(connection)
const figures = {}

async function now() {
  const { user, system } = process.cpuUsage()
  const facts = await client.info('cpu')
  const used = ['used_cpu_user', 'used_cpu_sys'].map((name) => Number(facts.match(`${name}:([0-9.]+)`)[1]))
  return [performance.now() / 1e3, (user + system) / 1e6, used[0] + used[1]]
}

function note(what, start, end, count) {
  const [wall, own, redis] = end.map((value, i) => value - start[i])
  figures[`${what}_per_s`] = count / wall
  figures[`${what}_cpu_us`] = (own / count) * 1e6
  figures[`${what}_redis_us`] = (redis / count) * 1e6
}

let start = await now()
for (let n = 0; n < jobs; n++) await queue.add('job', {}, { priority: 1 + (n % 10) })
note('submit', start, await now(), jobs)

const first = Math.floor(jobs / 10)
let ran = 0
await new Promise((last) => {
  new Worker('bench', async () => {
    ran += 1
    if (ran === first) start = await now()
    else if (ran === jobs) {
      note('run', start, await now(), jobs - first)
      last()
    }
  }, { connection, concurrency })
})
console.log(JSON.stringify(figures))
process.exit(0)
