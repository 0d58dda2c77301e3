"""What `cmake --install` puts where, the systemd unit, and the manual page."""
import glob
import os
import shutil
import subprocess
import tempfile
import unittest

from shanghai import BIN

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
PREFIX = "usr/local"
UNIT = f"{PREFIX}/lib/systemd/system/shanghai@.service"
PROGRAM = """#include <shanghai.h>
#include <stdio.h>
int main(void) { puts(sh_error_name(SH_OK)); return 0; }
"""


class InstalledTest(unittest.TestCase):
    """All that is installed, under a temporary root."""
    @classmethod
    def setUpClass(cls):
        cls.root = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.run_tool("cmake", "--install", os.path.dirname(BIN), env=dict(os.environ, DESTDIR=cls.root))

    @classmethod
    def run_tool(cls, *command, **options):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
        if done.returncode != 0:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def path(self, *parts):
        return os.path.join(self.root, PREFIX, *parts)


class Installed(InstalledTest):
    def test_everything_has_its_place(self):
        for name in ("shanghaid", "walsvc", "membersvc", "replsvc", "querysvc", "shanghaictl"):
            self.assertTrue(os.access(self.path("bin", name), os.X_OK), name)
        for name in ("include/shanghai.h", "include/shanghai_admin.h", "include/shanghai_error.h", "lib/libshanghai.so",
                     "lib/pkgconfig/shanghai.pc", "lib/sysusers.d/shanghai.conf",
                     "lib/systemd/system/shanghai@.service", "share/man/man1/shanghaictl.1",
                     "share/man/man3/libshanghai.3", "share/man/man8/shanghaid.8", "share/man/man8/walsvc.8",
                     "share/man/man8/querysvc.8", "share/doc/shanghai/configuration.md",
                     "share/doc/shanghai/examples/shanghai.yaml"):
            self.assertTrue(os.path.isfile(self.path(name)), name)

    def test_installed_example_is_good_and_programs_find_each_other(self):
        example = self.path("share/doc/shanghai/examples/shanghai.yaml")
        self.run_tool(self.path("bin/shanghaictl"), "config", "check", example)
        self.assertIn("shanghaid", self.run_tool(self.path("bin/shanghaid"), "--version"))

    def test_programs_build_against_the_library(self):
        with open(self.path("lib/libshanghai.so"), "rb") as library:
            if b"__asan_" in (code := library.read()) or b"__tsan_" in code:
                self.skipTest("the library has a sanitizer in it")
        env = dict(os.environ, PKG_CONFIG_PATH=self.path("lib/pkgconfig"), PKG_CONFIG_SYSROOT_DIR=self.root)
        flags = self.run_tool("pkg-config", "--cflags", "--libs", "shanghai", env=env).split()
        program = os.path.join(self.root, "program")
        with open(program + ".c", "w", encoding="ascii") as file:
            file.write(PROGRAM)
        self.run_tool("cc", "-Wall", "-Werror", "-o", program, program + ".c", *flags)
        self.assertEqual(self.run_tool(program, env=dict(os.environ, LD_LIBRARY_PATH=self.path("lib"))), "ok\n")

    @unittest.skipUnless(shutil.which("systemd-sysusers"), "systemd-sysusers is not installed")
    def test_user_of_the_unit_is_declared(self):
        os.makedirs(os.path.join(self.root, "etc"), exist_ok=True)
        self.run_tool("systemd-sysusers", "--root", self.root, "shanghai.conf")
        with open(os.path.join(self.root, "etc/passwd"), encoding="utf-8") as file:
            self.assertIn("\nshanghai:", "\n" + file.read())


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class Unit(InstalledTest):
    def setUp(self):
        for folder in ("usr/lib/systemd/system", "bin"):
            os.makedirs(os.path.join(self.root, folder), exist_ok=True)
        shutil.copy("/bin/kill", os.path.join(self.root, "bin"))
        for kind in ("target", "slice", "mount"):  # what every unit leans on
            for unit in glob.glob(f"/usr/lib/systemd/system/*.{kind}"):
                shutil.copy(unit, os.path.join(self.root, "usr/lib/systemd/system"))

    def verify(self):
        done = subprocess.run(["systemd-analyze", "verify", "--root", self.root, "shanghai@n1.service"],
                              capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, (done.stdout + done.stderr).replace(self.root, "")

    def test_verify_is_clean_once_installed(self):
        self.assertEqual(self.verify(), (0, ""))

    def test_verify_would_tell(self):
        program = self.path("bin/shanghaid")
        os.rename(program, program + ".away")
        self.addCleanup(os.rename, program + ".away", program)
        self.assertIn("/usr/local/bin/shanghaid is not executable", self.verify()[1])

    def test_unit_says_what_the_supervisor_speaks(self):
        with open(os.path.join(self.root, UNIT), encoding="ascii") as file:
            lines = file.read().splitlines()
        for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=30s", "Restart=on-failure",
                     "RestartPreventExitStatus=2 78", "KillMode=mixed", "OOMPolicy=continue"):
            self.assertIn(line, lines)


@unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
class Manual(unittest.TestCase):
    def test_manual_page_is_clean(self):
        page = os.path.join(SOURCE, "supervisor", "shanghaid.8")
        done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


if __name__ == "__main__":
    unittest.main()
