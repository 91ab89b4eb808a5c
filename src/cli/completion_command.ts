/**
 * `vhostd completion`: scripts for shells.
 *
 * For each word they call `vhostd complete`, which reads the definitions of commands and devices,
 * also of a device at a path.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { type CommandLine, parseCommand } from "./help.ts";
import { suggestion } from "../virtio/nearest.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

const BASH = `# vhostd completion bash
_vhostd() {
  local words candidate _ current line=\${COMP_LINE:0:COMP_POINT}
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[\${#words[@]}-1]}
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    if [[ $candidate == :files ]]; then
      compopt -o filenames 2>/dev/null
      while read -r candidate; do
        COMPREPLY+=("$candidate")
      done < <(compgen -f -- "\${current#--*=}")
    elif [[ $current == --*=* && $COMP_WORDBREAKS == *=* ]]; then
      COMPREPLY+=("\${candidate#--*=}") # Bash takes what follows = for the word.
    else
      COMPREPLY+=("$candidate")
    fi
  done < <(vhostd complete "\${words[@]:1}" 2>/dev/null)
  [[ \${#COMPREPLY[@]} == 1 && \${COMPREPLY[0]} == --*= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -F _vhostd vhostd
`;

const ZSH = `#compdef vhostd
# vhostd completion zsh
_vhostd() {
  local candidate about files=0
  local -a plain open
  while IFS=$'\\t' read -r candidate about; do
    if [[ $candidate == :files ]]; then
      files=1
    elif [[ $candidate == *= ]]; then
      open+=("\${candidate//:/\\\\:}:$about")
    else
      plain+=("\${candidate//:/\\\\:}:$about")
    fi
  done < <(vhostd complete "\${(@)words[2,CURRENT]}" 2>/dev/null)
  (( \${#open} )) && _describe -V vhostd open -S ''
  (( \${#plain} )) && _describe -V vhostd plain
  if (( files )); then
    compset -P '--*='
    _files
  fi
}
compdef _vhostd vhostd
`;

const FISH = `# vhostd completion fish
function __vhostd_complete
    set -l current (commandline -ct)
    set -l words (commandline -opc) $current
    test -z "$current"; and set words (commandline -opc) ""
    for line in (vhostd complete $words[2..-1] 2>/dev/null)
        if test "$line" = :files
            set -l start (string match -r -- '^--[^=]*=' $current)
            set -l typed (string replace -r -- '^--[^=]*=' '' $current)
            for path in $typed*
                test -d $path; and set path $path/
                echo $start$path
            end
        else
            echo $line
        end
    end
end
complete -c vhostd -f -a '(__vhostd_complete)'
`;

const SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

const options = { ...helpOption } as const;

/** For completion. */
export const shape: CommandShape = { options, operand: Object.keys(SCRIPTS) };

const COMMAND: CommandLine = {
  usage: "completion bash|zsh|fish",
  about: `Prints a script that completes vhostd's commands, flags and values in a shell.

  bash  source <(vhostd completion bash), in ~/.bashrc
  zsh   source <(vhostd completion zsh), in ~/.zshrc after compinit
  fish  vhostd completion fish >~/.config/fish/completions/vhostd.fish`,
  options,
  operand: "one shell",
};

/** Prints the script of a shell. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const shell = parsed.operand;
  if (!Object.hasOwn(SCRIPTS, shell)) {
    throw new UsageError(
      `Expected bash, zsh or fish, got ${shell}${suggestion(shell, Object.keys(SCRIPTS))}`,
    );
  }
  await Deno.stdout.write(new TextEncoder().encode(SCRIPTS[shell]));
  return 0;
}
