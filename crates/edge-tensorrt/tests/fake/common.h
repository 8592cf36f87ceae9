// What both of the false libraries share: the folder that they lie in, which says how they shall behave and takes down what
// they were asked.

#pragma once
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <sstream>
#include <fstream>
#include <string>

// Nothing here may be shared between two copies of a library, so everything is `static`.
namespace fake {

// The folder of this library's file. Each test has a copy of its own.
static std::string folder() {
    static int here;
    Dl_info info{};
    if (!dladdr(&here, &info)) std::abort();
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

// Takes down a line.
static void report(const std::string& line) {
    std::ofstream file(folder() + "/report", std::ios::app);
    file << line << "\n";
}

// The lines `NAME VALUE` of the file `faults`.
static std::map<std::string, std::string> faults() {
    std::map<std::string, std::string> all;
    std::ifstream file(folder() + "/faults");
    std::string line;
    while (std::getline(file, line)) {
        std::istringstream words(line);
        std::string name, value;
        words >> name >> value;
        all[name] = value;
    }
    return all;
}

static std::string fault(const std::string& name) {
    auto all = faults();
    auto found = all.find(name);
    return found == all.end() ? "" : found->second;
}

static int number(const std::string& name, int otherwise) {
    std::string value = fault(name);
    return value.empty() ? otherwise : std::atoi(value.c_str());
}

}  // namespace fake
