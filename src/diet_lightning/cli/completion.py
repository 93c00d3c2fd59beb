"""`diet completion`."""

from __future__ import annotations

from typing import Literal

from diet_lightning.cli import COMMANDS, all_options
from diet_lightning.cli.arguments import shipped_configs

BASH = r"""# Completion of `diet` for bash, printed by `diet completion bash`.
_diet() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" options="" words=""
    # bash splits --config=NAME at the equals sign
    if [[ $word == "=" ]]; then
        word=""
    elif [[ $before == "=" ]]; then
        before="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    case "${COMP_WORDS[1]}" in
@CASES@
    esac
    if (( COMP_CWORD == 1 )); then
        words="@COMMANDS@ --help --version"
    elif [[ $word == --* ]]; then
        word="--${word#--}" word="${word//-/_}" word="--${word#__}"
        words="$options"
    elif [[ $before == "--config" || $before == "-c" ]]; then
        words="@CONFIGS@"
    elif [[ ${COMP_WORDS[1]} == "completion" ]]; then
        words="bash zsh"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if (( COMP_CWORD > 1 )) && [[ $word != --* ]]; then
        local IFS=$'\n'
        COMPREPLY+=($(compgen -f -- "$word"))
        compopt -o filenames 2>/dev/null
    fi
}
complete -F _diet diet
"""
ZSH = r"""#compdef diet
# Completion of `diet` for zsh, printed by `diet completion zsh`.
_diet() {
    local -a commands options
    commands=(@DESCRIBED@)
    if (( CURRENT == 2 )); then
        _describe command commands
        compadd -- --help --version
        return
    fi
    case $words[2] in
@CASES@
    esac
    if [[ $words[CURRENT] == --config=* ]]; then
        compset -P '--config='
        compadd -- @CONFIGS@
        _files
    elif [[ $words[CURRENT] == -* ]]; then
        compadd -M 'm:-=_' -- $=options
    elif [[ $words[CURRENT-1] == (--config|-c) ]]; then
        compadd -- @CONFIGS@
        _files
    elif [[ $words[2] == completion ]]; then
        compadd -- bash zsh
    else
        _files
    fi
}
if [[ $funcstack[1] == _diet ]]; then
    _diet "$@"
else
    compdef _diet diet
fi
"""


def completion(shell: Literal["bash", "zsh"]) -> None:
    """Prints a script that completes commands, options, shipped configurations and paths.

    For bash: `diet completion bash > ~/.local/share/bash-completion/completions/diet`, which is read at the first
    completion. For zsh: `diet completion zsh > FOLDER/_diet`, where FOLDER is in `fpath` before `compinit` is called.

    Args:
        shell: bash or zsh.
    """
    parts = {
        "CASES": "\n".join(f'        {name}) options="{" ".join(each)}" ;;' for name, each in all_options().items()),
        "COMMANDS": " ".join(COMMANDS),
        "DESCRIBED": " ".join(f'"{name}:{text}"' for name, text in COMMANDS.items()),
        "CONFIGS": " ".join(shipped_configs()),
    }
    script = BASH if shell == "bash" else ZSH
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    print(script, end="")
