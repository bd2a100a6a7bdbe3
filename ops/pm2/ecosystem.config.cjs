// PM2 for machines whose other services it keeps: `make pm2-start`, `make pm2-stop`.
//
// One process of PM2 is one master of ours, which keeps its own processes (SERVE_WORKERS): PM2's cluster mode is for
// programs of Node alone. `pm2 sendSignal SIGHUP tallystick-api` replaces them one by one, and no request fails.
const path = require("node:path");

const root = path.resolve(__dirname, "..", "..");
const program = process.env.TALLYSTICK || path.join(root, ".venv", "bin", "tallystick");

const common = {
    script: program,
    interpreter: "none",
    cwd: root,
    exec_mode: "fork",
    instances: 1,
    autorestart: true,
    // A process that dies at once, for a setting that is refused, is not started for ever.
    max_restarts: 10,
    exp_backoff_restart_delay: 500,
    merge_logs: true,
    time: false,
};

module.exports = {
    apps: [
        {
            ...common,
            name: "tallystick-api",
            args: "serve",
            // SHUTDOWN_TIMEOUT_SECS in which requests end, and what the processes take to end after it.
            kill_timeout: 30000,
        },
        {
            ...common,
            name: "tallystick-worker",
            args: "worker",
            // Twice SHUTDOWN_TIMEOUT_SECS: loops end what they have in hand, then deliveries do.
            kill_timeout: 45000,
        },
    ],
};
