import alluxio.cli.fs.FileSystemShell;
import alluxio.conf.Configuration;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/**
 * The Alluxio shell, many commands in one JVM: a command per input line, its words separated by tabs.
 * What a command prints is followed by a line of its own that says "exit" and its exit code.
 */
public final class ShellLoop {
  public static void main(String[] args) throws Exception {
    BufferedReader commands =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (FileSystemShell shell = new FileSystemShell(Configuration.global())) {
      for (String line = commands.readLine(); line != null; line = commands.readLine()) {
        int code = shell.run(line.split("\t", -1));
        System.out.println("\nexit " + code);
        System.out.flush();
      }
    }
    // Threads of the client's pools are not all daemons.
    System.exit(0);
  }
}
