# Sets up .venv and starts the service, on Windows.  Arguments go to python -m trio_feed, for example
#   powershell -ExecutionPolicy Bypass -File scripts\run.ps1 --config config/live.toml
# $env:PYTHON chooses the interpreter (3.11 or newer).
$ErrorActionPreference = "Stop"
Set-Location (Join-Path $PSScriptRoot "..")

function Find-Python {
    $candidates = @($env:PYTHON, "python", "python3", "py") | Where-Object { $_ }
    foreach ($candidate in $candidates) {
        if (-not (Get-Command $candidate -ErrorAction SilentlyContinue)) { continue }
        & $candidate -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>$null
        if ($LASTEXITCODE -eq 0) { return $candidate }
    }
    [Console]::Error.WriteLine("trio_feed wants Python 3.11 or newer; found none (set `$env:PYTHON)")
    exit 1
}

$python = Find-Python
$venv = ".venv"
$own = Join-Path $venv "Scripts\python.exe"
$stampFile = Join-Path $venv ".stamp"
$stamp = "$(& $python -V) $((Get-FileHash requirements.lock).Hash)"
$before = if (Test-Path $stampFile) { (Get-Content $stampFile -Raw).Trim() } else { "" }
if ($before -ne $stamp) {
    [Console]::Error.WriteLine("setting up $venv ($(& $python -V)), once; it takes a minute or less")
    & $python -m venv --clear $venv
    if ($LASTEXITCODE -ne 0) { exit 1 }
    & $own -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
    if ($LASTEXITCODE -ne 0) { exit 1 }
    Set-Content -Path $stampFile -Value $stamp
}
& $own -m trio_feed @args
exit $LASTEXITCODE
