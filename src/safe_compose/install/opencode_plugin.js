// OpenCode loads this file and calls it before each of its tools; a tool does not run when it throws.
import { spawn } from "node:child_process"

const COMMAND = @COMMAND@
const MILLISECONDS = 10000

function judge(request) {
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`safe-compose could not judge this command: ${why}. A person decides this`))
    const child = spawn(COMMAND[0], COMMAND.slice(1), { stdio: ["pipe", "pipe", "ignore"] })
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      fail("it took too long")
    }, MILLISECONDS)
    let answer = ""
    child.stdout.on("data", (data) => (answer += data))
    child.stdin.on("error", () => {})
    child.on("error", (error) => {
      clearTimeout(timer)
      fail(`${COMMAND[0]} does not start (${error.code})`)
    })
    child.on("close", (code) => {
      clearTimeout(timer)
      if (code === 0 && answer.trim() === "") return resolve()
      try {
        const { reason } = JSON.parse(answer)
        if (typeof reason === "string" && reason !== "") return reject(new Error(reason))
      } catch {
        return fail("its answer does not read")
      }
      fail(`it ended with ${code}`)
    })
    child.stdin.end(JSON.stringify(request))
  })
}

export const SafeCompose = async ({ directory }) => ({
  "tool.execute.before": async (input, output) => {
    const args = output?.args ?? {}
    if (!["bash", "shell"].includes(input?.tool) && typeof args.command !== "string") return
    await judge({ tool: input?.tool, args, sessionID: input?.sessionID, callID: input?.callID, cwd: directory })
  },
})
