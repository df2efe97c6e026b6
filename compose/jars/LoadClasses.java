import java.io.BufferedReader;
import java.io.FileReader;

/** Loads the classes that a file names, so that the JVM, at its exit, writes them into an archive. */
public class LoadClasses {
    public static void main(String[] args) throws Exception {
        BufferedReader names = new BufferedReader(new FileReader(args[0]));
        for (String name = names.readLine(); name != null; name = names.readLine()) {
            try {
                Class.forName(name.replace('/', '.'), false, ClassLoader.getSystemClassLoader());
            } catch (ClassNotFoundException gone) {
                // Of another Java: its own classes are loaded without the archive.
            } catch (LinkageError lacking) {
                // It needs what is in no jar, so it is never loaded.
            }
        }
    }
}
